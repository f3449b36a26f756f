//! Groups, segments, positions, barriers.

use std::sync::Arc;
use std::time::Duration;

use _native::error::Reason;
use _native::meter::MeterSpec;
use _native::segment::{decompress, event_slices};

use crate::sample::*;

#[test]
fn segments_chain_from_the_head_in_order() {
    let engine = bare_engine();
    let mut previous = [0; 32];
    for position in 1..=5 {
        admit(&engine, &[event(position)]);
        let sealed = engine.seal(NOW + 7).unwrap().unwrap();
        let segment = &sealed.segments[0];
        assert_eq!(
            (segment.header.position, segment.header.recorded_us),
            (position, NOW + 7)
        );
        assert_eq!(segment.previous_digest, previous);
        let raw_bytes = segment.header.raw_bytes as usize;
        let raw = decompress(segment.codec, &segment.payload, raw_bytes).unwrap();
        assert_eq!(segment.digest, segment.header.digest(&previous, &raw));
        previous = segment.digest;
        engine.fold(&sealed).unwrap();
        assert_eq!(engine.position(TENANT), Ok(position));
    }
}

#[test]
fn a_group_is_sealed_again_until_it_is_folded() {
    let engine = engine();
    assert!(!engine.wait(Duration::from_millis(1)));
    assert!(engine.seal(NOW).unwrap().is_none());
    admit(&engine, &[event(1)]);
    assert!(engine.wait(Duration::from_millis(1)));
    let first = engine.seal(NOW).unwrap().unwrap();
    admit(&engine, &[event(2)]);
    assert!(Arc::ptr_eq(&first, &engine.seal(NOW + 1).unwrap().unwrap()));
    assert_eq!(total(&engine, 1), 0);
    engine.fold(&first).unwrap();
    assert_eq!(total(&engine, 1), 5 * ONE);
    assert_eq!(engine.fold(&first).unwrap_err().reason, Reason::PositionGap);
    commit(&engine);
    assert_eq!(total(&engine, 1), 10 * ONE);
    assert!(engine.seal(NOW).unwrap().is_none());
}

#[test]
fn waiting_ends_when_an_event_comes() {
    let engine = engine();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| engine.wait(Duration::from_secs(60)));
        admit(&engine, &[event(1)]);
        assert!(waiting.join().unwrap());
    });
}

#[test]
fn a_great_group_is_cut_into_segments() {
    let engine = engine();
    let padding = "x".repeat(1000);
    for batch in 0..10 {
        let events: Vec<_> = (0..1000)
            .map(|i| event(batch * 1000 + i).with("padding", &padding))
            .collect();
        admit(&engine, &events);
    }
    let sealed = engine.seal(NOW).unwrap().unwrap();
    let headers: Vec<_> = sealed.segments.iter().map(|segment| segment.header).collect();
    assert_eq!(
        headers.iter().map(|header| header.position).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert!(
        headers
            .iter()
            .all(|header| header.raw_bytes < (4 << 20) + (16 << 10))
    );
    assert_eq!(sealed.event_count(), 10_000);
    for segment in &sealed.segments {
        let raw = decompress(segment.codec, &segment.payload, segment.header.raw_bytes as usize).unwrap();
        assert_eq!(
            event_slices(&raw).unwrap().len(),
            segment.header.event_count as usize
        );
    }
    engine.fold(&sealed).unwrap();
    assert_eq!((engine.position(TENANT), engine.pending_bytes()), (Ok(3), 0));
    assert_eq!(total(&engine, 1), 50_000 * ONE);
}

#[test]
fn a_barrier_parts_what_is_counted_from_what_is_built() {
    let engine = bare_engine();
    let spec = |id| Arc::new(MeterSpec { id, ..tokens() });
    assert_eq!(engine.put_meter(TENANT, spec(1)), Ok(0));
    admit(&engine, &[event(1)]);
    commit(&engine);
    assert_eq!(engine.put_meter(TENANT, spec(2)), Ok(1));
    admit(&engine, &[event(2)]);
    let sealed = engine.seal(NOW).unwrap().unwrap();
    admit(&engine, &[event(3)]);
    // One segment is sealed, one open: the barrier is the last one's position.
    assert_eq!(engine.put_meter(TENANT, spec(3)), Ok(3));
    assert_eq!(admit(&engine, &[event(4)]).group, 4);
    assert_eq!(engine.put_meter(TENANT, spec(4)), Ok(4));
    engine.fold(&sealed).unwrap();
    commit(&engine);
    assert_eq!(engine.position(TENANT), Ok(3));
    commit(&engine);
    assert_eq!(
        [1, 2, 3, 4].map(|meter| total(&engine, meter) / ONE),
        [20, 15, 5, 0]
    );
    engine.drop_meter(TENANT, 2).unwrap();
    admit(&engine, &[event(5)]);
    commit(&engine);
    assert_eq!([1, 3, 4].map(|meter| total(&engine, meter) / ONE), [25, 10, 5]);
}

#[test]
fn tenants_share_a_group_and_nothing_else() {
    let engine = engine();
    engine.open_tenant(2, 41, [9; 32]);
    admit(&engine, &[event(1)]);
    assert_eq!(
        counts(&engine.admit(2, &request(&[event(1)]), NOW).unwrap()),
        (1, 0, 0, 0)
    );
    let sealed = engine.seal(NOW).unwrap().unwrap();
    let places: Vec<_> = sealed
        .segments
        .iter()
        .map(|segment| (segment.header.tenant, segment.header.position))
        .collect();
    assert_eq!(places, [(TENANT, 1), (2, 42)]);
    assert_eq!(sealed.segments[1].previous_digest, [9; 32]);
    engine.fold(&sealed).unwrap();
    assert_eq!((engine.position(TENANT), engine.position(2)), (Ok(1), Ok(42)));
}

#[test]
fn what_does_not_compress_is_stored_as_it_is() {
    for codec in [0, 1, 2] {
        let settings = _native::engine::Settings { codec, ..settings() };
        let engine = _native::engine::Engine::new(&KEY, settings).unwrap();
        engine.open_tenant(TENANT, 0, [0; 32]);
        let noise: String = (0..40_u32)
            .map(|i| char::from(33 + (i * 37 % 91) as u8))
            .collect();
        let bytes = Sample {
            properties: vec![],
            ..event(noise)
        };
        admit(&engine, std::slice::from_ref(&bytes));
        let small = engine.seal(NOW).unwrap().unwrap();
        engine.fold(&small).unwrap();
        assert_eq!(small.segments[0].codec, 0, "{codec}");
        assert_eq!(small.segments[0].payload, request(&[bytes]));
        admit(&engine, &(0..100).map(event).collect::<Vec<_>>());
        assert_eq!(engine.seal(NOW).unwrap().unwrap().segments[0].codec, codec);
    }
}

#[test]
fn frozen_partials_stay_visible_until_they_are_discarded() {
    let engine = engine();
    admit(&engine, &[event(1)]);
    commit(&engine);
    let frozen = engine.freeze();
    assert_eq!(
        (&frozen.positions[..], frozen.row_count()),
        (&[(TENANT, 1)][..], 1)
    );
    assert_eq!(total(&engine, 1), 5 * ONE);
    engine.discard(&frozen);
    assert_eq!((engine.stats().open_rows, engine.stats().frozen_rows), (0, 0));
}
