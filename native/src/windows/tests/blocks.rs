//! Blocks come back as they were, or not at all.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{AGGREGATIONS, ONE, key, payloads, point, total, with_meter};
use crate::error::{EngineError, Reason};
use crate::meter::Point;
use crate::windows::{Block, QueryRequest, QueryResult, Windows, merge_blocks};

/// Blocks of one meter with rows of the given (subject, minute, value).
fn blocks(meter: u32, rows: &[(u32, i32, i128)]) -> Vec<Block> {
    let mut windows = with_meter(meter);
    let points: Vec<Point> = rows
        .iter()
        .map(|&(subject, minute, value)| {
            let group = windows.group(meter, &key(&format!("subject-{subject:06}"), &["m", "r"]));
            point(group, minute, value)
        })
        .collect();
    windows.fold(&points, 1);
    windows.freeze().blocks
}

fn read(meter: u32, payload: &[u8]) -> Result<QueryResult, EngineError> {
    let by_subject = QueryRequest {
        group_by: vec!["subject".into()],
        ..total(meter)
    };
    with_meter(meter).query(&by_subject, &[payload], 0)
}

fn rows() -> impl Strategy<Value = Vec<(u32, i32, i128)>> {
    vec((0_u32..5, 0_i32..1440, -3 * ONE..3 * ONE), 1..60)
}

/// Corrupt or as it was, whether read or merged; nothing else, no panic.
fn survives(meter: u32, whole: &Block, payload: &[u8]) -> Result<(), TestCaseError> {
    match read(meter, payload) {
        Ok(result) => prop_assert_eq!(result, read(meter, &whole.payload).unwrap()),
        Err(error) => prop_assert_eq!(error.reason, Reason::Corrupt),
    }
    match merge_blocks(1, meter, 0, &[payload]) {
        Ok(merged) => prop_assert_eq!(&merged, std::slice::from_ref(whole)),
        Err(error) => prop_assert_eq!(error.reason, Reason::Corrupt),
    }
    Ok(())
}

/// Writes the right checksum into a payload, as only a defect could.
fn reseal(payload: &mut [u8]) {
    use sha2::{Digest, Sha256};
    let digest = Sha256::new()
        .chain_update(&payload[..32])
        .chain_update(&payload[40..])
        .finalize();
    payload[32..40].copy_from_slice(&digest[..8]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_block_that_is_cut_off_is_corrupt(meter in 0_u32..7, rows in rows()) {
        let whole = &blocks(meter, &rows)[0];
        for length in 0..whole.payload.len() {
            let error = read(meter, &whole.payload[..length]).unwrap_err();
            prop_assert_eq!(error.reason, Reason::Corrupt);
        }
    }

    #[test]
    fn a_block_with_flipped_bits_is_corrupt(meter in 0_u32..7, rows in rows(), flips in vec((any::<usize>(), 1_u8..), 1..4)) {
        let whole = &blocks(meter, &rows)[0];
        let mut payload = whole.payload.clone();
        for (at, bits) in flips {
            let at = at % payload.len();
            payload[at] ^= bits;
        }
        survives(meter, whole, &payload)?;
    }

    #[test]
    fn damage_under_a_right_checksum_never_panics(meter in 0_u32..7, rows in rows(), at: usize, bits in 1_u8..) {
        let mut payload = blocks(meter, &rows)[0].payload.clone();
        let at = at % payload.len();
        payload[at] ^= bits;
        reseal(&mut payload);
        let _ = read(meter, &payload);
        let _ = merge_blocks(1, meter, 0, &[&payload, &payload]);
    }

    #[test]
    fn merging_is_folding_together(meter in 0_u32..7, a in rows(), b in rows(), c in rows()) {
        let parts: Vec<Block> = [&a, &b, &c].into_iter().flat_map(|rows| blocks(meter, rows)).collect();
        let payloads: Vec<&[u8]> = parts.iter().map(|block| block.payload.as_slice()).collect();
        let merged = merge_blocks(1, meter, 0, &payloads).unwrap();
        // Only LATEST looks at positions, and here all are 1.
        prop_assert_eq!(merged, blocks(meter, &[a, b, c].concat()));
    }
}

#[test]
fn blocks_of_other_meters_and_dimensions_are_corrupt() {
    let block = &blocks(1, &[(1, 5, ONE)])[0];
    for (tenant, meter, day) in [(2, 1, 0), (1, 2, 0), (1, 1, 1)] {
        let error = merge_blocks(tenant, meter, day, &[&block.payload]).unwrap_err();
        assert_eq!(error.reason, Reason::Corrupt);
    }
    assert_eq!(read(2, &block.payload).unwrap_err().reason, Reason::Corrupt);
    let mut fewer = (*super::spec(1)).clone();
    fewer.dimensions.pop();
    let mut windows = Windows::new(1);
    windows.put_meter(fewer.into());
    assert_eq!(
        windows.query(&total(1), &[&block.payload], 0).unwrap_err().reason,
        Reason::Corrupt
    );
    let group = windows.group(1, &key("s", &["m"]));
    windows.fold(&[point(group, 5, ONE)], 1);
    let other = &windows.freeze().blocks[0];
    let error = merge_blocks(1, 1, 0, &[&block.payload, &other.payload]).unwrap_err();
    assert_eq!(error.reason, Reason::Corrupt);
    assert_eq!(merge_blocks(1, 1, 0, &[]), Ok(Vec::new()));
}

#[test]
fn great_blocks_are_split_between_subjects() {
    let rows: Vec<_> = (0..20_000)
        .map(|subject| (subject, 5, i128::from(subject)))
        .collect();
    let blocks = blocks(1, &rows);
    assert!(blocks.len() > 5);
    assert!(
        blocks
            .windows(2)
            .all(|pair| pair[0].subject_max < pair[1].subject_min)
    );
    assert_eq!(blocks.iter().map(|block| block.row_count).sum::<u32>(), 20_000);
    let payloads: Vec<&[u8]> = blocks.iter().map(|block| block.payload.as_slice()).collect();
    assert_eq!(merge_blocks(1, 1, 0, &payloads).as_ref(), Ok(&blocks));
}

#[test]
fn one_great_subject_is_split_between_its_groups() {
    let mut windows = with_meter(5);
    let mut points = Vec::new();
    for region in 0..400 {
        let group = windows.group(5, &key("all", &["m", &region.to_string()]));
        points.extend((0..100).map(|value| point(group, 5, value * i128::from(region))));
    }
    windows.fold(&points, 1);
    let expected = windows.query(&total(5), &[], 0).unwrap();
    let part = windows.freeze();
    assert!(part.blocks.len() > 1);
    assert!(
        part.blocks
            .iter()
            .all(|block| block.subject_min == b"all" && block.subject_max == b"all")
    );
    windows.discard(part.number);
    assert_eq!(windows.query(&total(5), &payloads(&part), 1), Ok(expected));
}

#[test]
fn every_aggregation_comes_back_from_its_block() {
    for (meter, _) in (0..).zip(AGGREGATIONS) {
        let rows = [
            (1, 5, ONE),
            (1, 5, 2 * ONE),
            (1, 6, -ONE / 3),
            (2, 1439, 10_i128.pow(37)),
        ];
        let block = &blocks(meter, &rows)[0];
        let result = read(meter, &block.payload).unwrap();
        assert_eq!(result.event_counts, [3, 1]);
        assert_eq!(result.groups, [["subject-000001", "subject-000002"]]);
        let expected = [(3 * ONE, ONE), (3 * ONE - ONE / 3, 10_i128.pow(37))];
        match meter {
            0 | 5 => assert_eq!(result.values, [expected[0].0, expected[0].1]),
            1 => assert_eq!(result.values, [expected[1].0, expected[1].1]),
            _ => {}
        }
    }
}
