//! Pages of a result, one after the other, are the result.

use crate::windows::block::OpenBlock;
use crate::windows::group::subject;
use crate::windows::{Page, QueryRequest, QueryResult, Windows};

const LIMIT: usize = 3;

/// Fails unless the pages of what `request` asks for are `whole`.
pub fn require_pages(
    windows: &Windows,
    request: &QueryRequest,
    payloads: &[&[u8]],
    checkpoint: u64,
    whole: &QueryResult,
) {
    let mut paged = QueryResult {
        position: whole.position,
        groups: vec![Vec::new(); request.group_by.len()],
        ..QueryResult::default()
    };
    loop {
        let after = paged.windows.last().map(|window| {
            let values = paged.groups.iter().filter_map(|column| column.last().cloned());
            (*window, values.collect())
        });
        let page = Some(Page { after, limit: LIMIT });
        let next = QueryRequest {
            page,
            ..request.clone()
        };
        let found = windows.query(&next, payloads, checkpoint).unwrap();
        assert_eq!(in_order(windows, &next, payloads, checkpoint), found, "{next:?}");
        assert!(found.windows.len() <= LIMIT);
        if found.windows.is_empty() {
            break;
        }
        paged.windows.extend(found.windows);
        paged.values.extend(found.values);
        paged.event_counts.extend(found.event_counts);
        for (column, values) in paged.groups.iter_mut().zip(found.groups) {
            column.extend(values);
        }
    }
    assert_eq!(&paged, whole, "the pages of {request:?}");
}

/// The page from blocks one after the other, as few as it needs.
fn in_order(windows: &Windows, request: &QueryRequest, payloads: &[&[u8]], checkpoint: u64) -> QueryResult {
    let edges = &request.boundaries;
    let place = |payload: &[u8]| {
        let block = OpenBlock::read(payload).unwrap();
        let minute = block.header.first_minute();
        let window = edges.partition_point(|edge| i64::from(*edge) <= minute);
        let least = subject(block.sections().unwrap()[0].key).to_vec();
        // A day that began before the first window has a part in that one.
        (window.max(1), least)
    };
    let mut blocks = payloads.to_vec();
    blocks.sort_by_key(|payload| place(payload));
    let mut query = windows.begin(request.clone(), checkpoint).unwrap();
    for payload in blocks {
        if query.add_in_order(&[payload]).unwrap() {
            break;
        }
    }
    query.finish().unwrap()
}
