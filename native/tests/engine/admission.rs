//! Verdicts.

use std::sync::Arc;

use _native::error::Reason;
use _native::response::EventReason::{
    FieldMissing, InFuture, InvalidTime, InvalidUtf8, InvalidValue, Malformed, ReservedField, TooLarge,
    TooOld,
};
use _native::response::{EventReason, Receipt};
use _native::wire::{put_bytes, put_number};

use crate::sample::*;

#[test]
fn an_event_counts_once_whatever_is_sent_again() {
    let engine = engine();
    assert_eq!(
        counts(&admit(&engine, &[event(1), event(2), event(1)])),
        (2, 1, 0, 0)
    );
    assert_eq!(counts(&admit(&engine, &[event(1)])), (0, 1, 0, 0));
    commit(&engine);
    assert_eq!(counts(&admit(&engine, &[event(2), event(3)])), (1, 1, 0, 0));
    commit(&engine);
    assert_eq!(total(&engine, 1), 15 * ONE);
}

#[test]
fn other_content_is_a_conflict_that_names_what_stands() {
    let engine = engine();
    admit(&engine, &[event(1)]);
    commit(&engine);
    let digest = stored_digest(&engine, &event(1));
    let other = [
        event(1).with("n", "6"),
        event(1).with("more", ""),
        event(1).without("model"),
        event(1).at(NOW - 1),
        event(1).at(None),
        Sample {
            subject: "other".into(),
            ..event(1)
        },
        Sample {
            kind: "other".into(),
            ..event(1)
        },
    ];
    let receipt = admit(&engine, &other);
    assert_eq!(counts(&receipt), (0, 0, 7, 0));
    for result in results(&receipt) {
        assert!(result.contains(&(6, digest.clone())), "{result:?}");
        assert!(result.contains(&(7, "1".into())), "{result:?}");
    }
    // The same id of another source is another event.
    assert_eq!(
        counts(&admit(
            &engine,
            &[Sample {
                source: "other".into(),
                ..event(1)
            }]
        )),
        (1, 0, 0, 0)
    );
}

fn stored_digest(engine: &_native::engine::Engine, event: &Sample) -> String {
    let payload = request(std::slice::from_ref(event));
    let search = _native::scan::Search {
        from_us: i64::MIN,
        to_us: i64::MAX,
        event_type: "",
        subject: "",
        event_id: "",
        source: "",
        before: (u64::MAX, 0),
        limit: 1,
    };
    let row = _native::pack::Stored {
        position: 1,
        codec: 0,
        payload: &payload,
        raw_bytes: payload.len(),
        parts: &[],
    };
    engine.scan(TENANT, &row, &search).unwrap().digests.remove(0)
}

#[test]
fn neither_the_order_of_properties_nor_the_encoding_is_content() {
    let engine = engine();
    admit(&engine, &[event(1)]);
    let mut turned = event(1);
    turned.properties.reverse();
    let mut repeated = event(1);
    repeated.properties.insert(0, ("n".into(), "overwritten".into()));
    let mut unknown_field = event(1).encode();
    put_number(&mut unknown_field, 99, 7);
    let mut split_time = event(1).encode();
    put_bytes(&mut split_time, 5, &[]);
    let body = raw_request(&[turned.encode(), repeated.encode(), unknown_field, split_time]);
    assert_eq!(counts(&engine.admit(TENANT, &body, NOW).unwrap()), (0, 4, 0, 0));
}

#[test]
fn an_event_without_time_is_stamped_and_a_later_retry_is_a_duplicate() {
    let engine = engine();
    admit(&engine, &[event(1).at(None)]);
    let body = request(&[event(1).at(None)]);
    let retry = engine.admit(TENANT, &body, NOW + 2 * DAY).unwrap();
    assert_eq!(counts(&retry), (0, 1, 0, 0));
    let sealed = engine.seal(NOW).unwrap().unwrap();
    let segment = &sealed.segments[0];
    assert_eq!((segment.min_time_us, segment.max_time_us), (NOW, NOW));
    let raw =
        _native::segment::decompress(segment.codec, &segment.payload, segment.header.raw_bytes as usize);
    let stored = fields(&raw.unwrap()).remove(0).1;
    assert!(stored.starts_with(&event(1).at(None).encode()));
    let (number, stamp) = fields(&stored).pop().unwrap();
    assert_eq!((number, fields(&stamp)), (15, vec![(1, b"1790000000".to_vec())]));
}

/// Events that break one rule each, with the reason and the field.
fn bad_events() -> Vec<(Vec<u8>, EventReason, &'static str)> {
    let long = "x".repeat(257);
    let time = |seconds: i64, nanos: i64| {
        let (mut bytes, mut inner) = (event(1).at(None).encode(), vec![]);
        put_number(&mut inner, 1, seconds);
        put_number(&mut inner, 2, nanos);
        put_bytes(&mut bytes, 5, &inner);
        bytes
    };
    let extra = |field: u32, inner: &[u8]| {
        let mut bytes = event(1).encode();
        put_bytes(&mut bytes, field, inner);
        bytes
    };
    let mut many = event(1);
    many.properties
        .extend((0..63).map(|i| (format!("p{i}"), String::new())));
    vec![
        (event("").encode(), FieldMissing, "id"),
        (
            Sample {
                source: String::new(),
                ..event(1)
            }
            .encode(),
            FieldMissing,
            "source",
        ),
        (
            Sample {
                kind: String::new(),
                ..event(1)
            }
            .encode(),
            FieldMissing,
            "type",
        ),
        (
            Sample {
                subject: String::new(),
                ..event(1)
            }
            .encode(),
            FieldMissing,
            "subject",
        ),
        (event(&long).encode(), TooLarge, "id"),
        (
            Sample {
                subject: long.clone(),
                ..event(1)
            }
            .encode(),
            TooLarge,
            "subject",
        ),
        (
            event(1).with("big", &"x".repeat(16 * 1024)).encode(),
            TooLarge,
            "",
        ),
        (many.encode(), TooLarge, "properties"),
        (extra(4, b"\xff"), InvalidUtf8, "subject"),
        (extra(6, b"\x0a\x01\xff"), InvalidUtf8, "properties"),
        (extra(6, b"\x0a\x01k\x12\x01\xff"), InvalidUtf8, "properties[k]"),
        (extra(15, b""), ReservedField, "received_time"),
        (time(253_402_300_800, 0), InvalidTime, "time"),
        (time(-62_135_596_801, 0), InvalidTime, "time"),
        (time(1, 1_000_000_000), InvalidTime, "time"),
        (time(1, -1), InvalidTime, "time"),
        (event(1).at(NOW - 35 * DAY - 1).encode(), TooOld, "time"),
        (event(1).at(NOW + 300_000_001).encode(), InFuture, "time"),
        (event(1).with("n", "many").encode(), InvalidValue, "properties[n]"),
        (event(1).with("n", "").encode(), InvalidValue, "properties[n]"),
        (extra(6, b"\x0a\x05k"), Malformed, ""),
        (b"\x0a\x05".to_vec(), Malformed, ""),
    ]
}

#[test]
fn a_bad_event_is_rejected_and_its_neighbours_are_not() {
    for (bytes, reason, field) in bad_events() {
        let engine = engine();
        let body = raw_request(&[event("before").encode(), bytes, event("after").encode()]);
        let receipt = engine.admit(TENANT, &body, NOW).unwrap();
        assert_eq!(counts(&receipt), (2, 0, 0, 1), "{reason:?} {field}");
        assert_eq!(receipt.rejections, [(reason, 1)], "{field}");
        let result = results(&receipt).remove(0);
        let text = |number| {
            result
                .iter()
                .find(|(n, _)| *n == number)
                .map_or("", |(_, text)| text.as_str())
        };
        assert_eq!(
            (text(1), text(2), text(3), text(4)),
            ("1", "4", reason.word(), field)
        );
        assert!(text(5).len() > 20, "{result:?}");
        commit(&engine);
        assert_eq!(total(&engine, 1), 10 * ONE);
    }
}

#[test]
fn what_lies_on_a_limit_is_accepted() {
    let engine = engine();
    let mut many = event("many");
    many.properties
        .extend((0..62).map(|i| (format!("p{i}"), String::new())));
    let exact = event("exact").with("big", "");
    let padding = 16 * 1024 - exact.encode().len() - 5;
    let accepted = [
        event("old").at(NOW - 35 * DAY),
        event("ahead").at(NOW + 300_000_000),
        event("x".repeat(256)),
        many,
        exact.with("big", &"x".repeat(padding)),
        event("no value").without("n"),
        Sample {
            kind: "unread".into(),
            ..event("unread").with("n", "text")
        },
    ];
    assert!(accepted[4].encode().len() > 16 * 1024 - 3);
    assert_eq!(counts(&admit(&engine, &accepted)), (7, 0, 0, 0));
}

#[test]
fn a_receipt_names_the_group_to_wait_for() {
    let engine = engine();
    let bad = event("");
    assert_eq!(admit(&engine, std::slice::from_ref(&bad)).group, 0);
    let group = |events: &[Sample]| admit(&engine, events).group;
    assert_eq!(group(&[event(1)]), 1);
    assert_eq!(group(&[event(1)]), 1);
    let sealed = engine.seal(NOW).unwrap().unwrap();
    assert_eq!(sealed.number, 1);
    // The original is under way: its group is the youngest.
    assert_eq!(group(&[event(1)]), 1);
    assert_eq!(group(&[event(2)]), 2);
    assert_eq!(group(&[event(1)]), 2);
    engine.fold(&sealed).unwrap();
    commit(&engine);
    assert_eq!(group(&[event(1)]), 0);
    assert_eq!(group(&[event(3), bad]), 3);
}

#[test]
fn a_response_carries_the_sequence_if_there_is_one() {
    let engine = engine();
    let mut body = request(&[event(1)]);
    put_number(&mut body, 2, 77);
    let receipt = engine.admit(TENANT, &body, NOW).unwrap();
    assert_eq!(receipt.sequence, 77);
    let texts = |receipt: &Receipt| fields(&receipt.encode(5));
    assert_eq!(
        texts(&receipt),
        [(1, b"5".to_vec()), (2, b"1".to_vec()), (7, b"77".to_vec())]
    );
    assert_eq!(texts(&admit(&engine, &[])), [(1, b"5".to_vec())]);
}

#[test]
fn a_request_over_a_limit_changes_nothing() {
    let engine = engine();
    let events: Vec<_> = (0..=50_000).map(|id| event(id).encode()).collect();
    let error = engine.admit(TENANT, &raw_request(&events), NOW).unwrap_err();
    assert_eq!(error.reason, Reason::LimitExceeded);
    let mut broken = request(&[event(1)]);
    broken.extend([0x0a, 0x7f]);
    let error = engine.admit(TENANT, &broken, NOW).unwrap_err();
    assert_eq!(error.reason, Reason::MalformedRequest);
    assert!(
        error.message.contains(&format!("at byte {}", broken.len() - 1)),
        "{}",
        error.message
    );
    assert_eq!(
        engine.admit(2, &[], NOW).unwrap_err().reason,
        Reason::UnknownTenant
    );
    assert_eq!((engine.pending_bytes(), engine.stats().identities), (0, 0));
    assert_eq!(
        counts(&engine.admit(TENANT, &raw_request(&events[1..]), NOW).unwrap()).0,
        50_000
    );
}

#[test]
fn too_many_pending_bytes_refuse_until_they_are_folded() {
    let tight = _native::engine::Settings {
        max_pending_bytes: 10,
        ..settings()
    };
    let engine = _native::engine::Engine::new(&KEY, tight).unwrap();
    engine.open_tenant(TENANT, 0, [0; 32]);
    admit(&engine, &[event(1)]);
    assert_eq!(engine.pending_bytes(), request(&[event(1)]).len() as u64);
    let error = engine.admit(TENANT, &request(&[event(2)]), NOW).unwrap_err();
    assert_eq!(error.reason, Reason::BackPressure);
    commit(&engine);
    assert_eq!(engine.pending_bytes(), 0);
    assert_eq!(counts(&admit(&engine, &[event(2)])), (1, 0, 0, 0));
}

#[test]
fn identities_are_kept_while_an_event_can_come_again() {
    let engine = engine();
    let ahead = NOW + 300_000_000;
    admit(&engine, &[event(1).at(ahead)]);
    assert_eq!(engine.expire_identities(ahead + 35 * DAY), 0);
    let body = request(&[event(1).at(ahead)]);
    assert_eq!(
        counts(&engine.admit(TENANT, &body, ahead + 35 * DAY).unwrap()),
        (0, 1, 0, 0)
    );
    assert_eq!(engine.expire_identities(ahead + 38 * DAY), 1);
    assert_eq!(engine.stats().identities, 0);
}

#[test]
fn every_aggregation_reads_what_applies_to_it() {
    use _native::meter::{Aggregation, Condition, Filter, MeterSpec};
    let engine = bare_engine();
    let meter = |id, aggregation, value: &str| MeterSpec {
        id,
        aggregation,
        value_property: value.into(),
        ..tokens()
    };
    let fast = Filter {
        property: "tier".into(),
        condition: Condition::In(vec!["fast".into(), "faster".into()]),
    };
    let filtered = MeterSpec {
        filters: vec![fast],
        ..meter(3, Aggregation::Sum, "n")
    };
    for spec in [
        meter(1, Aggregation::Count, ""),
        meter(2, Aggregation::UniqueCount, "user"),
        filtered,
    ] {
        engine.put_meter(TENANT, Arc::new(spec)).unwrap();
    }
    let events = [
        event(1).with("user", "a").with("tier", "fast"),
        event(2).with("user", "a").with("tier", "slow").with("n", "text"),
        event(3).with("user", "").with("tier", "faster").with("n", "0.5"),
        event(4).with("user", "b"),
    ];
    assert_eq!(counts(&admit(&engine, &events)), (4, 0, 0, 0));
    commit(&engine);
    assert_eq!(
        [1, 2, 3].map(|meter| total(&engine, meter)),
        [4 * ONE, 2 * ONE, ONE * 11 / 2]
    );
}
