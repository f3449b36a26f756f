//! What one event costs: batches of 1,000 LLM completions, three meters.
#![expect(missing_docs, reason = "criterion_main makes a function without any")]

use std::hint::black_box;
use std::sync::Arc;

use _native::engine::{Engine, Settings};
use _native::meter::{Aggregation, MeterSpec};
use _native::wire::{put_bytes, put_number, put_text};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const NOW: i64 = 1_790_000_000_000_000;
const EVENTS: u64 = 1000;
const SUBJECTS: u64 = 200;

fn engine() -> Engine {
    let settings = Settings {
        horizon_past_us: 35 * 86_400_000_000,
        horizon_future_us: 300_000_000,
        max_pending_bytes: u64::MAX,
        codec: 1,
        run_files: None,
    };
    let engine = Engine::new(&[7; 16], settings).unwrap_or_else(|error| unreachable!("{error}"));
    engine.open_tenant(1, 0, [0; 32]);
    let meter = |id: u32, aggregation, value: &str| MeterSpec {
        id,
        key: format!("meter_{id}"),
        event_type: "llm.completion".into(),
        aggregation,
        value_property: value.into(),
        dimensions: vec!["model".into()],
        filters: vec![],
    };
    for spec in [
        meter(1, Aggregation::Count, ""),
        meter(2, Aggregation::Sum, "input_tokens"),
        meter(3, Aggregation::Sum, "output_tokens"),
    ] {
        // The tenant was opened just now.
        let _ = engine.put_meter(1, Arc::new(spec));
    }
    engine
}

/// Batch `number`: its own ids, subjects in no order, times a millisecond apart.
fn batch(number: u64) -> Vec<u8> {
    let mut body = Vec::new();
    for i in number * EVENTS..(number + 1) * EVENTS {
        let mut event = Vec::new();
        let scattered = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        put_text(&mut event, 1, format!("req-{i:012x}-{scattered:06x}").as_bytes());
        put_text(&mut event, 2, b"gateway-eu-1");
        put_text(&mut event, 3, b"llm.completion");
        put_text(
            &mut event,
            4,
            format!("user-{:05}", scattered % SUBJECTS).as_bytes(),
        );
        let mut time = Vec::new();
        put_number(&mut time, 1, NOW / 1_000_000 - 60);
        put_number(&mut time, 2, i64::try_from(i % 1000).unwrap_or(0) * 1_000_000);
        put_bytes(&mut event, 5, &time);
        let model = ["gpt-4o", "gpt-4o-mini", "claude-sonnet"][usize::try_from(scattered % 3).unwrap_or(0)];
        let input = (100 + scattered % 4000).to_string();
        let output = (10 + scattered % 900).to_string();
        for (name, value) in [
            ("model", model),
            ("input_tokens", &input),
            ("output_tokens", &output),
        ] {
            let mut entry = Vec::new();
            put_text(&mut entry, 1, name.as_bytes());
            put_text(&mut entry, 2, value.as_bytes());
            put_bytes(&mut event, 6, &entry);
        }
        put_bytes(&mut body, 1, &event);
    }
    body
}

fn commit(engine: &Engine) {
    if let Ok(Some(group)) = engine.seal(NOW) {
        let _ = engine.fold(&group);
    }
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(EVENTS));

    let warm = engine();
    let mut number = 0;
    let mut next = || {
        number += 1;
        // Every hundredth: as a commit worker would, outside the measurement.
        if number % 100 == 0 {
            commit(&warm);
            drop(warm.freeze());
        }
        batch(number)
    };
    group.bench_function("admit 1000 new events", |bencher| {
        bencher.iter_batched(
            &mut next,
            |body| black_box(warm.admit(1, &body, NOW)),
            BatchSize::PerIteration,
        );
    });
    let body = batch(0);
    let _ = warm.admit(1, &body, NOW);
    group.bench_function("admit 1000 duplicates", |bencher| {
        bencher.iter(|| black_box(warm.admit(1, &body, NOW)));
    });

    let filled = |number| {
        let engine = engine();
        let _ = engine.admit(1, &batch(number), NOW);
        engine
    };
    group.bench_function("seal 1000 events", |bencher| {
        bencher.iter_batched(
            || filled(0),
            |engine| black_box(engine.seal(NOW)),
            BatchSize::PerIteration,
        );
    });
    let sealed = |number| {
        let engine = filled(number);
        let group = engine.seal(NOW);
        (engine, group)
    };
    group.bench_function("fold 1000 events", |bencher| {
        bencher.iter_batched(
            || sealed(0),
            |(engine, group)| {
                if let Ok(Some(group)) = group {
                    let _ = black_box(engine.fold(&group));
                }
                engine
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
