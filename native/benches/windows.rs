//! What a point costs to fold, and a row to freeze, write, merge and read.
#![allow(missing_docs, reason = "criterion's macros write undocumented functions")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use _native::meter::{Aggregation, MINUTE_US, MeterSpec, Point, push_key_part};
use _native::windows::{Block, CounterRequest, QueryRequest, Span, Windows, merge_blocks};

const ONE: i128 = 1_000_000_000_000;
const POINTS: u32 = 100_000;
const ROWS: u32 = 100_000;

fn spec(aggregation: Aggregation) -> Arc<MeterSpec> {
    Arc::new(MeterSpec {
        id: 1,
        key: "tokens".into(),
        event_type: "use".into(),
        aggregation,
        value_property: "value".into(),
        dimensions: vec!["model".into()],
        filters: Vec::new(),
    })
}

fn key(subject: u32) -> Vec<u8> {
    let mut key = Vec::new();
    push_key_part(&mut key, format!("subject-{subject:08}").as_bytes());
    push_key_part(&mut key, b"model-large");
    key
}

fn windows(aggregation: Aggregation, groups: u32) -> Windows {
    let mut windows = Windows::new(1);
    windows.put_meter(spec(aggregation));
    for group in 0..groups {
        windows.group(1, &key(group));
    }
    windows
}

/// Points of scattered groups, three in four in the first minute.
fn points(groups: u32) -> Vec<Point> {
    let scatter = |index: u32| index.wrapping_mul(2_654_435_761) >> 4;
    let minute = |index: u32| i64::from(scatter(index) % 4 / 3);
    let point = |index| Point {
        value: i128::from(index % 97) * ONE,
        time_us: minute(index) * MINUTE_US + i64::from(index % 1000),
        group: scatter(index) % groups,
        index,
    };
    (0..POINTS).map(point).collect()
}

fn fold(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("fold");
    bench.throughput(Throughput::Elements(u64::from(POINTS)));
    for aggregation in [
        Aggregation::Count,
        Aggregation::Sum,
        Aggregation::Latest,
        Aggregation::UniqueCount,
    ] {
        for groups in [1_000, 100_000] {
            let mut windows = windows(aggregation, groups);
            let points = points(groups);
            let id = BenchmarkId::new(format!("{aggregation:?}"), groups);
            bench.bench_function(id, |bencher| bencher.iter(|| windows.fold(black_box(&points), 1)));
        }
    }
    let mut counted = windows(Aggregation::Sum, 1_000);
    for group in 0_u32..1_000 {
        let customer = u64::from(group);
        let spans = vec![Span {
            from_minute: i32::MIN,
            to_minute: i32::MAX,
            customer,
        }];
        counted.set_subject(&format!("subject-{group:08}"), spans);
        let (filters, boundaries) = (Vec::new(), vec![0, 40_000, 80_000]);
        let request = CounterRequest {
            counter: customer,
            meter: 1,
            customer,
            filters,
            boundaries,
        };
        assert!(counted.put_counter(request, &[], 0).is_ok());
    }
    let points = points(1_000);
    bench.bench_function("Sum and a counter/1000", |bencher| {
        bencher.iter(|| counted.fold(black_box(&points), 1));
    });
    bench.finish();
}

/// A table of one row for each of so many groups.
fn full() -> Windows {
    let mut windows = windows(Aggregation::Sum, ROWS);
    let point = |group| Point {
        value: i128::from(group % 97) * ONE,
        time_us: 0,
        group,
        index: group,
    };
    windows.fold(&(0..ROWS).map(point).collect::<Vec<_>>(), 1);
    windows
}

fn payloads(blocks: &[Block]) -> Vec<&[u8]> {
    blocks.iter().map(|block| block.payload.as_slice()).collect()
}

fn blocks(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("blocks");
    bench.throughput(Throughput::Elements(u64::from(ROWS)));
    bench.sample_size(20);
    bench.bench_function("freeze", |bencher| {
        bencher.iter_batched_ref(full, Windows::freeze, BatchSize::PerIteration);
    });
    let blocks = full().freeze().blocks;
    let bytes: usize = blocks.iter().map(|block| block.payload.len()).sum();
    eprintln!("{} blocks, {bytes} bytes for {ROWS} rows", blocks.len());
    let twice = [payloads(&blocks), payloads(&blocks)].concat();
    bench.bench_function("merge two", |bencher| {
        bencher.iter(|| merge_blocks(1, 1, 0, &twice));
    });
    let empty = windows(Aggregation::Sum, 0);
    let full = full();
    for group_by in [vec![], vec!["subject".to_owned()]] {
        let name = if group_by.is_empty() {
            "total"
        } else {
            "by subject"
        };
        let request = QueryRequest {
            meter: 1,
            boundaries: vec![0, 1440],
            group_by,
            ..QueryRequest::default()
        };
        bench.bench_function(format!("query blocks, {name}"), |bencher| {
            bencher.iter(|| empty.query(&request, &payloads(&blocks), 1));
        });
        bench.bench_function(format!("query memory, {name}"), |bencher| {
            bencher.iter(|| full.query(&request, &[], 0));
        });
    }
    let one = "subject-00004711".to_owned();
    let request = QueryRequest {
        meter: 1,
        boundaries: vec![0, 1440],
        subjects: vec![one],
        ..QueryRequest::default()
    };
    bench.bench_function("query blocks, one subject", |bencher| {
        bencher.iter(|| empty.query(&request, &payloads(&blocks), 1));
    });
    bench.bench_function("query memory, one subject", |bencher| {
        bencher.iter(|| full.query(&request, &[], 0));
    });
    bench.finish();
}

criterion_group!(benches, fold, blocks);
criterion_main!(benches);
