//! Windows against the obvious slow implementation, and blocks against damage.

mod blocks;
mod model;
mod pages;
mod script;
mod survey;

use std::sync::Arc;

use super::{CounterColumns, CounterRequest, FrozenPart, NO_GROUP, QueryRequest, Span, Windows};
use crate::error::Reason;
use crate::meter::{Aggregation, MINUTE_US, MeterSpec, Point, push_key_part};

pub(super) const AGGREGATIONS: [Aggregation; 7] = [
    Aggregation::Count,
    Aggregation::Sum,
    Aggregation::Min,
    Aggregation::Max,
    Aggregation::Avg,
    Aggregation::UniqueCount,
    Aggregation::Latest,
];

pub(super) const ONE: i128 = 1_000_000_000_000;

/// A meter of each aggregation, numbered as in `AGGREGATIONS`, with dimensions "model" and "region".
pub(super) fn spec(meter: u32) -> Arc<MeterSpec> {
    Arc::new(MeterSpec {
        id: meter,
        key: format!("meter-{meter}"),
        event_type: "use".into(),
        aggregation: AGGREGATIONS[meter as usize],
        value_property: "value".into(),
        dimensions: vec!["model".into(), "region".into()],
        filters: Vec::new(),
    })
}

pub(super) fn key(subject: &str, dimensions: &[&str]) -> Vec<u8> {
    let mut key = Vec::new();
    push_key_part(&mut key, subject.as_bytes());
    for value in dimensions {
        push_key_part(&mut key, value.as_bytes());
    }
    key
}

fn point(group: u32, minute: i32, value: i128) -> Point {
    Point {
        value,
        time_us: i64::from(minute) * MINUTE_US,
        group,
        index: 0,
    }
}

fn total(meter: u32) -> QueryRequest {
    QueryRequest {
        meter,
        boundaries: vec![0, 10_000],
        ..QueryRequest::default()
    }
}

fn with_meter(meter: u32) -> Windows {
    let mut windows = Windows::new(1);
    windows.put_meter(spec(meter));
    windows
}

fn payloads(part: &FrozenPart) -> Vec<&[u8]> {
    part.blocks.iter().map(|block| block.payload.as_slice()).collect()
}

#[test]
fn blocks_older_than_memory_are_refused() {
    let mut windows = with_meter(1);
    let group = windows.group(1, &key("s", &["", ""]));
    windows.fold(&[point(group, 5, ONE)], 7);
    let part = windows.freeze();
    assert_eq!(part.position, 7);
    assert_eq!(windows.query(&total(1), &[], 6).unwrap().values, [ONE]);
    assert_eq!(
        windows.query(&total(1), &payloads(&part), 7).unwrap().values,
        [ONE]
    );
    windows.discard(part.number);
    assert_eq!(windows.frozen_rows(), 0);
    assert_eq!(
        windows.query(&total(1), &[], 6).unwrap_err().reason,
        Reason::StaleSnapshot
    );
    assert_eq!(
        windows.query(&total(1), &payloads(&part), 7).unwrap().values,
        [ONE]
    );
}

#[test]
fn recovery_starts_at_the_checkpoint() {
    let mut windows = with_meter(0);
    windows.set_position(9);
    assert_eq!(
        windows.query(&total(0), &[], 8).unwrap_err().reason,
        Reason::StaleSnapshot
    );
    let group = windows.group(0, &key("s", &["", ""]));
    windows.fold(&[point(group, 5, 0)], 10);
    windows.set_position(11);
    let result = windows.query(&total(0), &[], 9).unwrap();
    assert_eq!((result.values, result.position), (vec![ONE], 11));
}

#[test]
fn a_sum_that_does_not_fit_is_out_of_range_and_keeps_folding() {
    let limit = 10_i128.pow(38) - 1;
    let mut windows = with_meter(1);
    let group = windows.group(1, &key("s", &["", ""]));
    let request = CounterRequest {
        counter: 3,
        meter: 1,
        customer: 4,
        filters: Vec::new(),
        boundaries: vec![0, 9],
    };
    windows.set_subject(
        "s",
        vec![Span {
            from_minute: 0,
            to_minute: 100,
            customer: 4,
        }],
    );
    windows.put_counter(request, &[], 0).unwrap();
    windows.fold(&[point(group, 5, limit), point(group, 6, limit)], 1);
    assert_eq!(
        windows.query(&total(1), &[], 0).unwrap_err().reason,
        Reason::OutOfRange
    );
    assert_eq!(windows.usage(3, 8).unwrap_err().reason, Reason::OutOfRange);
    windows.fold(&[point(group, 5, -limit)], 2);
    assert_eq!(windows.query(&total(1), &[], 0).unwrap().values, [limit]);
    assert_eq!(windows.usage(3, 8).unwrap(), (limit, 0, 9));
    assert_eq!(windows.usage(3, 9).unwrap_err().reason, Reason::OutOfRange);
    assert_eq!(windows.usage(5, 8).unwrap_err().reason, Reason::UnknownCounter);
}

/// The same as columns, each with filters and boundaries of its own.
fn columns(requests: &[CounterRequest]) -> CounterColumns {
    let numbers = || 0..u32::try_from(requests.len()).unwrap();
    CounterColumns {
        meter: requests[0].meter,
        counters: requests.iter().map(|request| request.counter).collect(),
        customers: requests.iter().map(|request| request.customer).collect(),
        filter_of: numbers().collect(),
        course_of: numbers().collect(),
        filters: requests.iter().map(|request| request.filters.clone()).collect(),
        boundaries: requests
            .iter()
            .map(|request| request.boundaries.clone())
            .collect(),
    }
}

#[test]
fn columns_that_do_not_fit_together_change_nothing() {
    let good = columns(&[CounterRequest {
        counter: 1,
        meter: 0,
        customer: 1,
        filters: Vec::new(),
        boundaries: vec![0, 9],
    }]);
    let mut windows = with_meter(0);
    for spoil in [
        |columns: &mut CounterColumns| columns.customers.push(1),
        |columns: &mut CounterColumns| columns.course_of[0] = 1,
        |columns: &mut CounterColumns| columns.filter_of[0] = 1,
        |columns: &mut CounterColumns| columns.boundaries[0] = vec![9, 0],
    ] {
        let mut bad = good.clone();
        spoil(&mut bad);
        let error = windows.put_counters(&bad, &[], 0).unwrap_err();
        assert_eq!(error.reason, Reason::InvalidDefinition);
        assert_eq!(windows.counter_count(), 0);
    }
    windows.put_counters(&good, &[], 0).unwrap();
    assert_eq!(windows.usage(1, 8).unwrap(), (0, 0, 9));
}

#[test]
fn a_watched_counter_is_told_of_once_until_it_changes_again() {
    let mut windows = with_meter(0);
    let request = |counter, customer| CounterRequest {
        counter,
        meter: 0,
        customer,
        filters: Vec::new(),
        boundaries: vec![0, 9],
    };
    for (customer, subject) in [(1, "a"), (2, "b")] {
        let span = Span {
            from_minute: 0,
            to_minute: 100,
            customer,
        };
        windows.set_subject(subject, vec![span]);
    }
    let groups = ["a", "b"].map(|subject| windows.group(0, &key(subject, &["", ""])));
    windows.watch_counters(&[1, 2, 9], true);
    assert!(windows.take_touched().is_empty());
    windows
        .put_counters(&columns(&[request(1, 1), request(2, 2), request(3, 2)]), &[], 0)
        .unwrap();
    assert_eq!(windows.take_touched(), [1, 2]);
    assert!(windows.take_touched().is_empty());
    windows.fold(
        &[
            point(groups[1], 5, 0),
            point(groups[1], 6, 0),
            point(groups[0], 50, 0),
        ],
        1,
    );
    assert_eq!(
        windows.take_touched(),
        [2],
        "what lies outside all spans changes nothing"
    );
    windows.put_counter(request(1, 1), &[], 1).unwrap();
    windows.watch_counters(&[2], false);
    windows.fold(&[point(groups[1], 5, 0)], 2);
    assert_eq!(windows.take_touched(), [1]);
    windows.watch_counters(&[2], true);
    windows.drop_counter(1);
    assert_eq!(
        windows.take_touched(),
        [2],
        "it may have changed while nobody watched"
    );
    windows.fold(&[point(groups[0], 5, 0), point(groups[1], 5, 0)], 3);
    assert_eq!(windows.take_touched(), [2]);
    assert_eq!(windows.usages(&[2, 1, 2], 8)[1], None);
    assert_eq!(windows.usages(&[2, 3], 8)[0], windows.usage(2, 8).ok());
}

#[test]
fn a_dropped_meter_takes_its_partials_groups_and_counters_along() {
    let mut windows = with_meter(0);
    windows.put_meter(spec(1));
    let dead = windows.group(0, &key("s", &["", ""]));
    let live = windows.group(1, &key("s", &["", ""]));
    let request = CounterRequest {
        counter: 3,
        meter: 0,
        customer: 4,
        filters: Vec::new(),
        boundaries: vec![0, 9],
    };
    windows.put_counter(request, &[], 0).unwrap();
    windows.fold(&[point(dead, 5, 0), point(live, 5, ONE)], 1);
    let _ = windows.freeze();
    windows.fold(&[point(dead, 5, 0)], 2);
    windows.drop_meter(0);
    assert_eq!(
        (
            windows.open_rows(),
            windows.frozen_rows(),
            windows.counter_count()
        ),
        (0, 1, 0)
    );
    assert_eq!(
        windows.query(&total(0), &[], 0).unwrap_err().reason,
        Reason::UnknownMeter
    );
    assert_eq!(windows.group(0, &key("s", &["", ""])), NO_GROUP);
    windows.put_meter(spec(0));
    let anew = windows.group(0, &key("s", &["", ""]));
    let mut pending = vec![point(dead, 5, 0), point(anew, 5, 0), point(NO_GROUP, 5, 0)];
    windows.compact_groups(&mut [&mut pending]);
    assert_eq!(windows.group_count(), 2);
    windows.fold(&pending, 3);
    assert_eq!(windows.query(&total(0), &[], 0).unwrap().values, [ONE]);
    assert_eq!(windows.query(&total(1), &[], 0).unwrap().values, [ONE]);
}

#[test]
fn names_that_mean_nothing_are_named() {
    let windows = with_meter(0);
    let by = |name: &str| QueryRequest {
        group_by: vec![name.into()],
        ..total(0)
    };
    let only = |name: &str| QueryRequest {
        filters: vec![(name.into(), Vec::new())],
        ..total(0)
    };
    for request in [by("zone"), only("zone"), only("subject"), only("customer")] {
        let error = windows.query(&request, &[], 0).unwrap_err();
        assert_eq!(error.reason, Reason::InvalidDefinition);
        let named = error.message.contains("zone") || error.message.contains("subject");
        assert!(named || error.message.contains("customer"), "{error}");
    }
    let backwards = QueryRequest {
        boundaries: vec![5, 5],
        ..total(0)
    };
    assert_eq!(
        windows.query(&backwards, &[], 0).unwrap_err().reason,
        Reason::InvalidDefinition
    );
}

/// Looking up a subject's rows one by one gives what passing over all rows gives.
#[test]
fn few_subjects_among_many_are_found_open_and_frozen() {
    let mut windows = with_meter(1);
    let mut points = Vec::new();
    for subject in 0..300_u64 {
        let name = format!("subject-{subject}");
        let span = Span {
            from_minute: 1,
            to_minute: 3,
            customer: subject / 2,
        };
        windows.set_subject(&name, vec![span]);
        for (region, minute) in [("x", 0), ("x", 1), ("y", 2), ("", 3)] {
            let group = windows.group(1, &key(&name, &["", region]));
            points.push(point(group, minute, ONE + i128::from(subject)));
        }
    }
    windows.fold(&points, 1);
    let answers = |windows: &Windows| {
        let one = QueryRequest {
            subjects: vec!["subject-7".into()],
            ..total(1)
        };
        let owned = QueryRequest {
            customers: vec![3, 4],
            ..total(1)
        };
        let both = QueryRequest {
            subjects: vec!["subject-7".into(), "subject-1".into()],
            ..owned.clone()
        };
        let none = QueryRequest {
            customers: vec![999],
            ..total(1)
        };
        let sum = |request| windows.query(&request, &[], 0).unwrap().values;
        [sum(one), sum(owned), sum(both), sum(none)]
    };
    let expected = [
        vec![4 * (ONE + 7)],
        vec![8 * ONE + 60],
        vec![2 * (ONE + 7)],
        vec![],
    ];
    assert_eq!(answers(&windows), expected);
    windows.compact_groups(&mut []);
    assert_eq!(answers(&windows), expected);
    let _ = windows.freeze();
    windows.compact_groups(&mut []);
    assert_eq!(answers(&windows), expected);
    windows.drop_meter(1);
    windows.put_meter(spec(1));
    let nothing: [Vec<i128>; 4] = Default::default();
    assert_eq!(answers(&windows), nothing);
}
