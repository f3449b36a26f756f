//! Events, requests and engines to test with.

use std::sync::Arc;

use _native::engine::{Engine, Settings};
use _native::meter::{Aggregation, MeterSpec, Quantity, minute_of};
use _native::response::Receipt;
use _native::windows::QueryRequest;
use _native::wire::{Reader, Value, put_bytes, put_number, put_text};

pub const NOW: i64 = 1_790_000_000_000_000;
pub const DAY: i64 = 86_400_000_000;
pub const TENANT: u32 = 1;
pub const KEY: [u8; 16] = *b"sixteen secrets!";
pub const ONE: Quantity = 1_000_000_000_000;

#[derive(Clone)]
pub struct Sample {
    pub id: String,
    pub source: String,
    pub kind: String,
    pub subject: String,
    pub time_us: Option<i64>,
    pub properties: Vec<(String, String)>,
}

/// An event of type `llm` that used `n` = 5 of model `m`.
pub fn event(id: impl std::fmt::Display) -> Sample {
    Sample {
        id: format!("{id}"),
        source: "gateway".into(),
        kind: "llm".into(),
        subject: "user".into(),
        time_us: Some(NOW),
        properties: vec![("model".into(), "m".into()), ("n".into(), "5".into())],
    }
}

impl Sample {
    pub fn at(mut self, time_us: impl Into<Option<i64>>) -> Self {
        self.time_us = time_us.into();
        self
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.properties.retain(|(known, _)| known != name);
        self.properties.push((name.into(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.properties.retain(|(known, _)| known != name);
        self
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_text(&mut out, 1, self.id.as_bytes());
        put_text(&mut out, 2, self.source.as_bytes());
        put_text(&mut out, 3, self.kind.as_bytes());
        put_text(&mut out, 4, self.subject.as_bytes());
        if let Some(time_us) = self.time_us {
            let mut time = Vec::new();
            put_number(&mut time, 1, time_us.div_euclid(1_000_000));
            put_number(&mut time, 2, time_us.rem_euclid(1_000_000) * 1000);
            put_bytes(&mut out, 5, &time);
        }
        for (name, value) in &self.properties {
            let mut entry = Vec::new();
            put_text(&mut entry, 1, name.as_bytes());
            put_text(&mut entry, 2, value.as_bytes());
            put_bytes(&mut out, 6, &entry);
        }
        out
    }
}

/// A request of events that may be no events.
pub fn raw_request(events: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for event in events {
        put_bytes(&mut out, 1, event);
    }
    out
}

pub fn request(events: &[Sample]) -> Vec<u8> {
    raw_request(&events.iter().map(Sample::encode).collect::<Vec<_>>())
}

pub fn settings() -> Settings {
    Settings {
        horizon_past_us: 35 * DAY,
        horizon_future_us: 300_000_000,
        max_pending_bytes: 1 << 30,
        codec: 1,
        run_files: None,
    }
}

/// SUM of `n` by model, as meter 1.
pub fn tokens() -> MeterSpec {
    MeterSpec {
        id: 1,
        key: "tokens".into(),
        event_type: "llm".into(),
        aggregation: Aggregation::Sum,
        value_property: "n".into(),
        dimensions: vec!["model".into()],
        filters: vec![],
    }
}

pub fn bare_engine() -> Engine {
    let engine = Engine::new(&KEY, settings()).unwrap();
    engine.open_tenant(TENANT, 0, [0; 32]);
    engine
}

/// One tenant, one meter.
pub fn engine() -> Engine {
    let engine = bare_engine();
    engine.put_meter(TENANT, Arc::new(tokens())).unwrap();
    engine
}

pub fn admit(engine: &Engine, events: &[Sample]) -> Receipt {
    engine.admit(TENANT, &request(events), NOW).unwrap()
}

/// (accepted, duplicates, conflicts, rejected)
pub fn counts(receipt: &Receipt) -> (u32, u32, u32, u32) {
    (
        receipt.accepted,
        receipt.duplicates,
        receipt.conflicts,
        receipt.rejected,
    )
}

pub fn commit(engine: &Engine) {
    let sealed = engine.seal(NOW).unwrap().unwrap();
    engine.fold(&sealed).unwrap();
}

/// Everything that a meter counted.
pub fn total(engine: &Engine, meter: u32) -> Quantity {
    let boundaries = vec![minute_of(NOW - 40 * DAY), minute_of(NOW + DAY)];
    let request = QueryRequest {
        meter,
        boundaries,
        group_by: vec![],
        filters: vec![],
        subjects: vec![],
        customers: vec![],
        page: None,
    };
    engine
        .query(TENANT, &request, &[], 0)
        .unwrap()
        .values
        .iter()
        .sum()
}

/// A result of a response: its fields' texts by number; numbers as text.
pub fn results(receipt: &Receipt) -> Vec<Vec<(u32, String)>> {
    let bytes = receipt.encode(1);
    let results = fields(&bytes).into_iter().filter(|(number, _)| *number == 6);
    results
        .map(|(_, result)| {
            fields(&result)
                .into_iter()
                .map(|(n, text)| (n, lossy(&text)))
                .collect()
        })
        .collect()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn fields(bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut reader = Reader::new(bytes);
    let mut found = Vec::new();
    while let Some((number, value)) = reader.field().unwrap() {
        found.push(match value {
            Value::Varint(value) => (number, value.to_string().into_bytes()),
            Value::Bytes(bytes) => (number, bytes.to_vec()),
            Value::Other => (number, vec![]),
        });
    }
    found
}
