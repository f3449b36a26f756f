//! Pages of a result, one after the other, are the result.

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
