//! Bytes that nobody should send.

use proptest::prelude::*;

use crate::sample::*;

#[test]
fn a_request_cut_anywhere_is_refused_or_loses_whole_events() {
    let body = request(&[event(1), event(2).at(None), event(3)]);
    let ends = [1, 2, 3].map(|count| request(&[event(1), event(2).at(None), event(3)][..count]).len());
    for cut in 0..body.len() {
        let admitted = bare_engine().admit(TENANT, &body[..cut], NOW);
        assert_eq!(admitted.is_ok(), cut == 0 || ends.contains(&cut), "{cut}");
    }
}

#[test]
fn an_event_cut_anywhere_harms_no_neighbour() {
    let whole = event(2).encode();
    for cut in 0..whole.len() {
        let body = raw_request(&[event(1).encode(), whole[..cut].to_vec(), event(3).encode()]);
        let receipt = bare_engine().admit(TENANT, &body, NOW).unwrap();
        assert!(receipt.accepted >= 2, "{cut}");
        assert_eq!(receipt.accepted + receipt.rejected, 3, "{cut}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = engine().admit(TENANT, &body, NOW);
    }

    #[test]
    fn no_change_of_a_request_makes_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let mut body = request(&[event(1), event(2).at(None), event(3)]);
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let engine = engine();
        if let Ok(receipt) = engine.admit(TENANT, &body, NOW) {
            if receipt.accepted > 0 {
                // What was accepted can be read back.
                let sealed = engine.seal(NOW).unwrap().unwrap();
                let segment = &sealed.segments[0];
                prop_assert_eq!(segment.header.event_count, receipt.accepted);
                let replayed = crate::sample::engine().replay(&_native::replay::Replay {
                    tenant: TENANT,
                    rows: &[segment.row()],
                    upto: 1,
                    known: 0,
                    fold: true,
                    now_us: NOW,
                });
                prop_assert_eq!(replayed, Ok(u64::from(receipt.accepted)));
            }
        }
    }
}
