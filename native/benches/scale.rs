//! What one event costs where nothing is in the cache: ten million identities, a hundred thousand
//! groups, two meters with one dimension each.
#![expect(missing_docs, reason = "criterion_main makes a function without any")]

use std::hint::black_box;
use std::sync::Arc;

use _native::engine::{Engine, Settings};
use _native::event::Event;
use _native::hash::{Content, Hasher};
use _native::identity::{Day, IdentityTable};
use _native::meter::{Aggregation, MeterSpec};
use _native::segment::{compress, event_slices};
use _native::wire::{put_bytes, put_number, put_text};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const NOW: i64 = 1_790_000_000_000_000;
const KEY: [u8; 16] = [7; 16];
const EVENTS: u64 = 1000;
const IDENTITIES: u64 = 10_000_000;
const SUBJECTS: u64 = 33_334;
const MODELS: [&str; 3] = ["gpt-4o", "gpt-4o-mini", "claude-sonnet"];

/// Batch `number`: its own ids, groups in no order.
fn batch(number: u64) -> Vec<u8> {
    let mut body = Vec::new();
    for i in number * EVENTS..(number + 1) * EVENTS {
        let scattered = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24;
        put_bytes(&mut body, 1, &event(i, scattered));
    }
    body
}

fn event(i: u64, scattered: u64) -> Vec<u8> {
    let mut event = Vec::new();
    put_text(
        &mut event,
        1,
        format!("req-{i:012x}-{:06x}", scattered & 0xff_ffff).as_bytes(),
    );
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
    let model = MODELS[usize::try_from(scattered / SUBJECTS % 3).unwrap_or(0)];
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
    event
}

fn meter(id: u32, aggregation: Aggregation, value: &str) -> Arc<MeterSpec> {
    Arc::new(MeterSpec {
        id,
        key: format!("meter_{id}"),
        event_type: "llm.completion".into(),
        aggregation,
        value_property: value.into(),
        dimensions: vec!["model".into()],
        filters: vec![],
    })
}

fn filled() -> Engine {
    let settings = Settings {
        horizon_past_us: 35 * 86_400_000_000,
        horizon_future_us: 300_000_000,
        max_pending_bytes: u64::MAX,
        codec: 1,
        run_files: None,
    };
    let engine = Engine::new(&KEY, settings).unwrap_or_else(|error| unreachable!("{error}"));
    engine.open_tenant(1, 0, [0; 32]);
    // The tenant was opened just now.
    let _ = engine.put_meter(1, meter(1, Aggregation::Count, ""));
    let _ = engine.put_meter(1, meter(2, Aggregation::Sum, "input_tokens"));
    for number in 0..IDENTITIES / EVENTS {
        let _ = engine.admit(1, &batch(number), NOW);
        if number % 16 == 0 {
            commit(&engine);
        }
    }
    commit(&engine);
    engine
}

fn commit(engine: &Engine) {
    while let Ok(Some(group)) = engine.seal(NOW) {
        let _ = engine.fold(&group);
    }
}

fn whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scale");
    group.throughput(Throughput::Elements(EVENTS)).sample_size(50);
    let engine = filled();
    let mut number = IDENTITIES / EVENTS;
    let mut next = || {
        number += 1;
        batch(number)
    };
    group.bench_function("admit", |bencher| {
        bencher.iter_batched(
            &mut next,
            |body| black_box(engine.admit(1, &body, NOW)),
            BatchSize::PerIteration,
        );
    });
    commit(&engine);
    group.bench_function("fold", |bencher| {
        bencher.iter_batched(
            || {
                let _ = engine.admit(1, &next(), NOW);
                engine.seal(NOW)
            },
            |sealed| {
                if let Ok(Some(sealed)) = sealed {
                    let _ = black_box(engine.fold(&sealed));
                }
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn parts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parts");
    group.throughput(Throughput::Elements(EVENTS)).sample_size(50);
    let body = batch(0);
    let slices = event_slices(&body).unwrap_or_default();
    group.bench_function("decode and check", |bencher| {
        let mut event = Event::default();
        bencher.iter(|| {
            slices
                .iter()
                .filter(|bytes| event.read(bytes).is_ok() && event.check().is_ok())
                .count()
        });
    });
    let hasher = Hasher::new(&KEY);
    group.bench_function("decode, identity and content", |bencher| {
        let mut event = Event::default();
        bencher.iter(|| {
            for bytes in &slices {
                let _ = event.read(bytes);
                black_box((hasher.identity(&event), hasher.content(&event)));
            }
        });
    });
    let mut table = IdentityTable::default();
    let identities = |numbers: std::ops::Range<u64>| -> Vec<_> {
        let bodies = numbers.map(batch).collect::<Vec<_>>();
        let all = bodies
            .iter()
            .flat_map(|body| event_slices(body).unwrap_or_default());
        all.map(|bytes| {
            let mut event = Event::default();
            let _ = event.read(bytes);
            hasher.identity(&event)
        })
        .collect()
    };
    for number in 0..IDENTITIES / EVENTS {
        for identity in identities(number..number + 1) {
            table.insert(identity, Content::new(1), Day::of(NOW));
        }
    }
    let mut number = IDENTITIES / EVENTS;
    group.bench_function("touch and insert identities", |bencher| {
        bencher.iter_batched(
            || {
                number += 1;
                identities(number..number + 1)
            },
            |identities| {
                for chunk in identities.chunks(64) {
                    let touched = chunk.iter().map(|identity| table.touch(*identity));
                    black_box(touched.fold(0, u64::wrapping_add));
                    for identity in chunk {
                        black_box(table.insert(*identity, Content::new(1), Day::of(NOW)));
                    }
                }
            },
            BatchSize::PerIteration,
        );
    });
    for (name, codec) in [("lz4", 1), ("zstd 1", 2)] {
        eprintln!(
            "{name}: {} bytes of {}",
            compress(codec, &body).unwrap_or_default().len(),
            body.len()
        );
        group.bench_function(format!("compress, {name}"), |bencher| {
            bencher.iter(|| compress(codec, &body));
        });
    }
    group.finish();
}

criterion_group!(benches, parts, whole);
criterion_main!(benches);
