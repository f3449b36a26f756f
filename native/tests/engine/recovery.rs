//! Replay, history, reading back.

use std::sync::Arc;

use _native::builder::MeterBuilder;
use _native::engine::Engine;
use _native::error::{EngineError, Reason};
use _native::meter::{Aggregation, MeterSpec};
use _native::pack::{Row, Stored};
use _native::replay::Replay;
use _native::scan::Search;
use _native::segment::{Segment, decompress};

use crate::sample::*;

/// Three segments of three events, the last of which came without a time.
pub fn history(engine: &Engine) -> Vec<Arc<Segment>> {
    let segment = |i: i64| {
        let events = [
            event(3 * i),
            event(3 * i + 1).at(NOW - i),
            event(3 * i + 2).at(None),
        ];
        admit(engine, &events);
        let sealed = engine.seal(NOW).unwrap().unwrap();
        engine.fold(&sealed).unwrap();
        Arc::clone(&sealed.segments[0])
    };
    (0..3).map(segment).collect()
}

fn replay(engine: &Engine, segment: &Segment, fold: bool, now_us: i64) -> Result<u64, EngineError> {
    replay_rows(engine, &[segment.row()], fold, now_us)
}

pub fn replay_rows(engine: &Engine, rows: &[Row<'_>], fold: bool, now_us: i64) -> Result<u64, EngineError> {
    engine.replay(&Replay {
        tenant: TENANT,
        rows,
        upto: u64::MAX,
        known: 0,
        fold,
        now_us,
    })
}

pub fn stored(segment: &Segment) -> Stored<'_> {
    Stored {
        position: segment.header.position,
        codec: segment.codec,
        payload: &segment.payload,
        raw_bytes: segment.header.raw_bytes as usize,
        parts: &[],
    }
}

#[test]
fn a_replayed_engine_is_the_one_that_was() {
    let first = engine();
    let segments = history(&first);
    let second = engine();
    for segment in &segments {
        replay(&second, segment, true, NOW).unwrap();
    }
    assert_eq!(second.position(TENANT), Ok(3));
    assert_eq!(
        (total(&second, 1), second.stats().identities),
        (total(&first, 1), 9)
    );
    let again: Vec<_> = (0..9)
        .map(|i| {
            event(i).at(if i % 3 == 2 {
                None
            } else {
                Some(NOW - i % 3 * (i / 3))
            })
        })
        .collect();
    assert_eq!(counts(&admit(&second, &again)), (0, 9, 0, 0));
    // The chain goes on.
    admit(&second, &[event("next")]);
    let sealed = second.seal(NOW).unwrap().unwrap();
    assert_eq!(sealed.segments[0].header.position, 4);
    assert_eq!(sealed.segments[0].previous_digest, segments[2].digest);
}

#[test]
fn segments_under_the_checkpoint_only_move_the_position() {
    let segments = history(&engine());
    let second = engine();
    replay(&second, &segments[0], false, NOW).unwrap();
    replay(&second, &segments[1], false, NOW).unwrap();
    assert_eq!((second.position(TENANT), second.stats().open_rows), (Ok(2), 0));
    replay(&second, &segments[2], true, NOW).unwrap();
    assert_eq!(second.position(TENANT), Ok(3));
    assert_eq!(second.freeze().row_count(), 1);
}

#[test]
fn replay_may_begin_within_the_chain() {
    let segments = history(&engine());
    let second = bare_engine();
    let third = Engine::new(&KEY, settings()).unwrap();
    third.open_tenant(TENANT, 2, segments[1].digest);
    replay(&third, &segments[2], true, NOW).unwrap();
    assert_eq!(third.position(TENANT), Ok(3));
    assert_eq!(
        replay(&second, &segments[1], true, NOW).unwrap_err().reason,
        Reason::PositionGap
    );
}

#[test]
fn what_does_not_verify_is_refused_and_changes_nothing() {
    let segments = history(&engine());
    let second = engine();
    let damage: [fn(&mut Segment); 5] = [
        |segment| segment.payload[20] ^= 1,
        |segment| segment.digest[0] ^= 1,
        |segment| segment.header.event_count += 1,
        |segment| segment.header.raw_bytes += 1,
        |segment| segment.codec = 0,
    ];
    for damage in damage {
        let mut damaged = Segment::clone(&segments[0]);
        damage(&mut damaged);
        assert_eq!(
            replay(&second, &damaged, true, NOW).unwrap_err().reason,
            Reason::Corrupt
        );
    }
    // A header that lies is found out even under a digest that fits.
    for damage in &damage[2..] {
        let mut damaged = Segment::clone(&segments[0]);
        damage(&mut damaged);
        let raw = decompress(
            segments[0].codec,
            &segments[0].payload,
            segments[0].header.raw_bytes as usize,
        );
        damaged.digest = damaged.header.digest(&[0; 32], &raw.unwrap());
        assert_eq!(
            replay(&second, &damaged, true, NOW).unwrap_err().reason,
            Reason::Corrupt
        );
    }
    assert_eq!((second.position(TENANT), second.stats().identities), (Ok(0), 0));
}

#[test]
fn identities_past_the_horizon_are_not_taken_back() {
    let segments = history(&engine());
    let second = engine();
    replay(&second, &segments[0], true, NOW + 60 * DAY).unwrap();
    assert_eq!(second.stats().identities, 0);
}

#[test]
fn a_value_that_a_later_meter_cannot_read_is_skipped() {
    let first = engine();
    admit(
        &first,
        &[event(1).with("other", "text"), event(2).with("other", "4")],
    );
    let sealed = first.seal(NOW).unwrap().unwrap();
    let later = MeterSpec {
        id: 2,
        value_property: "other".into(),
        ..tokens()
    };
    let second = engine();
    second.put_meter(TENANT, Arc::new(later.clone())).unwrap();
    replay(&second, &sealed.segments[0], true, NOW).unwrap();
    assert_eq!((total(&second, 1), total(&second, 2)), (10 * ONE, 4 * ONE));

    let segment = &sealed.segments[0];
    let mut builder = MeterBuilder::new(&KEY, TENANT, Arc::new(later));
    builder.add(&stored(segment), 1).unwrap();
    assert_eq!(
        (builder.skipped_count(), builder.skipped_events()),
        (1, &["gateway/1".to_owned()][..])
    );
    assert_eq!(builder.row_count(), 1);
}

#[test]
fn blocks_from_history_are_those_of_the_engine() {
    for aggregation in [
        Aggregation::Sum,
        Aggregation::UniqueCount,
        Aggregation::Latest,
        Aggregation::Avg,
    ] {
        let spec = Arc::new(MeterSpec {
            aggregation,
            ..tokens()
        });
        let first = bare_engine();
        first.put_meter(TENANT, Arc::clone(&spec)).unwrap();
        let mut builder = MeterBuilder::new(&KEY, TENANT, spec);
        for segment in history(&first) {
            builder.add(&stored(&segment), u64::MAX).unwrap();
        }
        let frozen = first.freeze();
        let built = builder.take_blocks();
        assert_eq!(
            built.iter().collect::<Vec<_>>(),
            frozen.blocks.iter().map(|block| &**block).collect::<Vec<_>>()
        );
        assert_eq!((builder.row_count(), builder.take_blocks().len()), (0, 0));
    }
}

#[test]
fn a_scan_finds_newest_first() {
    let engine = engine();
    let segment = history(&engine).remove(0);
    let all = Search {
        from_us: i64::MIN,
        to_us: i64::MAX,
        event_type: "",
        subject: "",
        event_id: "",
        source: "",
        before: (u64::MAX, 0),
        limit: 100,
    };
    let scan = |search: Search<'_>| engine.scan(TENANT, &stored(&segment), &search).unwrap();
    let found = scan(all);
    assert_eq!((found.indexes, found.times_us), (vec![2, 1, 0], vec![NOW; 3]));
    assert_eq!(found.events[2], event(0).encode());
    assert_eq!(found.meters, vec![vec![1]; 3]);
    assert_eq!(
        scan(Search {
            before: (1, 2),
            limit: 1,
            ..all
        })
        .indexes,
        [1]
    );
    assert_eq!(scan(Search { event_id: "2", ..all }).indexes, [2]);
    assert_eq!(
        scan(Search {
            event_type: "llm",
            source: "gateway",
            subject: "user",
            ..all
        })
        .indexes
        .len(),
        3
    );
    assert_eq!(
        scan(Search {
            subject: "nobody",
            ..all
        })
        .indexes
        .len(),
        0
    );
    assert_eq!(scan(Search { to_us: NOW, ..all }).indexes.len(), 0);
    assert_eq!(
        scan(Search {
            from_us: NOW,
            to_us: NOW + 1,
            ..all
        })
        .indexes
        .len(),
        3
    );
}
