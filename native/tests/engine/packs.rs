//! Packs: several segments in a row are the segments that they were.

use std::sync::Arc;

use _native::builder::MeterBuilder;
use _native::engine::Engine;
use _native::error::Reason;
use _native::pack::{PART_BYTES, Pack, Row, Stored, pack};
use _native::scan::Search;
use _native::segment::Segment;

use crate::recovery::{replay_rows, stored};
use crate::sample::*;

const START: [u8; 32] = [0; 32];

/// Segments of one to three events each.
fn history(engine: &Engine, count: i64) -> Vec<Arc<Segment>> {
    let segment = |i: i64| {
        let events: Vec<_> = (0..=i % 3).map(|n| event(10 * i + n).at(NOW - i)).collect();
        admit(engine, &events);
        let sealed = engine.seal(NOW + i).unwrap().unwrap();
        engine.fold(&sealed).unwrap();
        Arc::clone(&sealed.segments[0])
    };
    (0..count).map(segment).collect()
}

fn rows(segments: &[Arc<Segment>]) -> Vec<Row<'_>> {
    segments.iter().map(|segment| segment.row()).collect()
}

fn row(pack: &Pack) -> Row<'_> {
    Row {
        header: pack.header,
        codec: pack.codec,
        payload: &pack.payload,
        digest: pack.digest,
        parts: &pack.parts,
    }
}

fn stored_pack(pack: &Pack) -> Stored<'_> {
    Stored {
        position: pack.header.position,
        codec: pack.codec,
        payload: &pack.payload,
        raw_bytes: pack.header.raw_bytes as usize,
        parts: &pack.parts,
    }
}

#[test]
fn an_engine_is_the_same_whichever_rows_it_is_made_from() {
    let first = engine();
    let segments = history(&first, 12);
    let plain = rows(&segments);
    let early = pack(&START, &plain[..5]).unwrap();
    let late = pack(&segments[4].digest, &plain[5..10]).unwrap();
    let both = pack(&START, &[row(&early), row(&late)]).unwrap();
    assert_eq!(both, pack(&START, &plain[..10]).unwrap());
    for rows in [
        vec![row(&early), row(&late), plain[10], plain[11]],
        vec![row(&both), plain[10], plain[11]],
        vec![plain[0], plain[1], row(&early), row(&late), plain[10], plain[11]],
    ] {
        let second = engine();
        // The pack that follows may begin with what was taken back.
        let (some, rest) = rows.split_at(2);
        let mut count = replay_rows(&second, some, true, NOW).unwrap();
        count += replay_rows(&second, rest, true, NOW).unwrap();
        assert_eq!((count, second.position(TENANT)), (24, Ok(12)));
        assert_eq!(second.stats().identities, 24);
        let blocks = |engine: &Engine| engine.freeze().blocks;
        let again = engine();
        replay_rows(&again, &plain, true, NOW).unwrap();
        assert_eq!(blocks(&second), blocks(&again));
    }
}

#[test]
fn taking_back_stops_where_it_is_told_to_within_a_pack() {
    let segments = history(&engine(), 8);
    let all = pack(&START, &rows(&segments)).unwrap();
    let second = engine();
    for upto in [3, 3, 7, 20] {
        let replay = _native::replay::Replay {
            tenant: TENANT,
            rows: &[row(&all)],
            upto,
            known: 0,
            fold: true,
            now_us: NOW,
        };
        second.replay(&replay).unwrap();
        assert_eq!(second.position(TENANT), Ok(upto.min(8)));
    }
    assert_eq!(second.stats().identities, 15);
}

#[test]
fn a_pack_proves_each_of_its_segments() {
    let segments = history(&engine(), 6);
    let plain = rows(&segments);
    let all = pack(&START, &plain).unwrap();
    let digests: Vec<_> = segments.iter().map(|segment| segment.digest).collect();
    let times = (NOW - 5, NOW);
    assert_eq!(row(&all).verify(&START, times.0, times.1).unwrap(), digests);
    assert_eq!(all.parts.len(), 6 * PART_BYTES);
    // Each byte of the parts matters.
    for at in 0..all.parts.len() {
        let mut parts = all.parts.clone();
        parts[at] ^= 1 << (at % 8);
        let edited = Row {
            parts: &parts,
            ..row(&all)
        };
        let stored: Vec<_> = parts.chunks(PART_BYTES).map(|part| part[16..].to_vec()).collect();
        let found = edited.verify(&START, times.0, times.1);
        let unseen = found.is_ok_and(|found| found.iter().zip(&stored).all(|(a, b)| a[..] == b[..]));
        assert!(!unseen, "byte {at}");
        let replayed = replay_rows(&engine(), &[edited], false, NOW);
        assert_eq!(replayed.unwrap_err().reason, Reason::Corrupt, "byte {at}");
    }
    // And so do their order and all of them.
    for wrong in [
        vec![plain[0], plain[2]],
        vec![plain[1], plain[0]],
        vec![plain[1], plain[2]],
    ] {
        assert_eq!(pack(&START, &wrong).unwrap_err().reason, Reason::Corrupt);
    }
}

#[test]
fn an_edited_segment_is_not_packed() {
    let segments = history(&engine(), 3);
    let mut header = segments[1].header;
    header.recorded_us += 1;
    let edited = Row {
        header,
        ..segments[1].row()
    };
    let plain = rows(&segments);
    let error = pack(&START, &[plain[0], edited, plain[2]]).unwrap_err();
    assert_eq!(error.reason, Reason::Corrupt);
    assert!(error.message.contains("position 2"), "{}", error.message);
}

#[test]
fn meters_and_searches_read_packs_as_they_read_segments() {
    let engine = engine();
    let segments = history(&engine, 9);
    let all = pack(&START, &rows(&segments)).unwrap();
    let builders: Vec<_> = (0..2)
        .map(|_| MeterBuilder::new(&KEY, TENANT, Arc::new(tokens())))
        .collect();
    let [mut one, mut other] = <[MeterBuilder; 2]>::try_from(builders).ok().unwrap();
    for segment in &segments[..7] {
        one.add(&stored(segment), u64::MAX).unwrap();
    }
    other.add(&stored_pack(&all), 7).unwrap();
    assert_eq!(one.take_blocks(), other.take_blocks());

    let search = |before, limit| Search {
        from_us: i64::MIN,
        to_us: i64::MAX,
        event_type: "",
        subject: "",
        event_id: "",
        source: "",
        before,
        limit,
    };
    let packed = engine
        .scan(TENANT, &stored_pack(&all), &search((6, 2), 100))
        .unwrap();
    let mut places = Vec::new();
    for segment in segments[..6].iter().rev() {
        let found = engine
            .scan(TENANT, &stored(segment), &search((6, 2), 100))
            .unwrap();
        places.extend(found.positions.into_iter().zip(found.indexes));
    }
    let found: Vec<_> = packed.positions.into_iter().zip(packed.indexes).collect();
    assert_eq!(found, places);
    assert_eq!((found[0], packed.recorded_us[0]), ((6, 1), NOW + 5));
    let few = engine
        .scan(TENANT, &stored_pack(&all), &search((u64::MAX, 0), 2))
        .unwrap();
    assert_eq!((few.positions, few.indexes), (vec![9, 9], vec![2, 1]));
}
