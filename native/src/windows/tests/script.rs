//! Random scripts of everything that can happen to windows, played against the model.

use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::model::{Model, Seen};
use super::pages::require_pages;
use super::survey;
use super::{AGGREGATIONS, ONE, columns, key, spec};
use crate::error::Reason;
use crate::meter::{MINUTE_US, Point};
use crate::windows::{Block, CounterRequest, FrozenPart, QueryRequest, Span, Windows, merge_blocks};

#[derive(Clone, Debug)]
enum Step {
    /// Events of one segment.
    Fold(Vec<Seen>),
    /// Events that get their groups now and are folded with the next segment.
    Observe(Vec<Seen>),
    Freeze,
    /// The oldest frozen part becomes durable.
    Write,
    /// The oldest durable part is forgotten.
    Discard,
    Compact,
    Merge,
    SetSubject(String, Vec<Span>),
    PutCounter(CounterRequest),
    DropCounter(u64),
    Query(QueryRequest),
}

#[derive(Default)]
struct World {
    windows: Option<Windows>,
    model: Model,
    observed: Vec<Seen>,
    pending: Vec<Point>,
    frozen: Vec<FrozenPart>,
    written: Vec<FrozenPart>,
    blocks: Vec<Block>,
    checkpoint: u64,
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

fn meters() -> impl Strategy<Value = u32> {
    // Mostly the same one, so that steps meet each other.
    prop_oneof![2 => Just(1_u32), 1 => 0_u32..7]
}

fn subjects() -> impl Strategy<Value = String> {
    select(texts(&["", "a", "aa"]))
}

fn minutes() -> impl Strategy<Value = i32> {
    prop_oneof![-3_i32..3, 1437_i32..1443, -1500_i32..3000]
}

fn seen() -> impl Strategy<Value = Vec<Seen>> {
    let value = prop_oneof![
        (-4_i128..5).prop_map(|value| value * ONE),
        -1_000_000_i128..1_000_000
    ];
    let dimensions = (
        select(texts(&["", "x", "xy"])),
        prop_oneof![4 => Just(String::new()), 1 => Just("x".to_owned())],
    );
    let one = (meters(), subjects(), dimensions, minutes(), 0_i64..3, value);
    let one = one.prop_map(|(meter, subject, (model, region), minute, micros, value)| Seen {
        meter,
        subject,
        dimensions: [model, region],
        time_us: i64::from(minute) * MINUTE_US + micros * (MINUTE_US - 1) / 2,
        value: if meter == 0 { 0 } else { value },
        position: 0,
        index: 0,
    });
    vec((one, 1_usize..4), 0..30).prop_map(|list| {
        list.into_iter()
            .flat_map(|(one, times)| vec![one; times])
            .collect()
    })
}

fn spans() -> impl Strategy<Value = Vec<Span>> {
    let bounds = btree_set(minutes(), 0..3);
    (bounds, any::<bool>(), vec((1_u64..4, 0..4), 4)).prop_map(|(mut bounds, whole, spans)| {
        if whole {
            bounds.extend([i32::MIN, i32::MAX]);
        }
        let bounds: Vec<i32> = bounds.into_iter().collect();
        let spans = bounds.windows(2).zip(spans).filter(|(_, (_, gap))| *gap > 0);
        spans
            .map(|(pair, (customer, _))| Span {
                from_minute: pair[0],
                to_minute: pair[1],
                customer,
            })
            .collect()
    })
}

fn boundaries() -> impl Strategy<Value = Vec<i32>> {
    (btree_set(minutes(), 0..5), any::<bool>()).prop_map(|(mut set, whole)| {
        if whole {
            set.extend([-2000, 4000]);
        }
        set.into_iter().collect()
    })
}

fn filters() -> impl Strategy<Value = Vec<(String, Vec<String>)>> {
    vec(
        (
            select(texts(&["model", "region"])),
            subsequence(texts(&["x", "", "xy"]), 1..=3),
        ),
        0..3,
    )
}

fn queries() -> impl Strategy<Value = QueryRequest> {
    let group_by = subsequence(texts(&["model", "customer", "subject", "region"]), 0..=4).prop_shuffle();
    let kept = (vec(subjects(), 0..3), vec(1_u64..4, 0..3));
    (
        meters(),
        boundaries(),
        group_by,
        prop_oneof![Just(Vec::new()), filters()],
        kept,
    )
        .prop_map(
            |(meter, boundaries, group_by, filters, (subjects, customers))| QueryRequest {
                meter,
                boundaries,
                group_by,
                filters,
                subjects,
                customers,
                page: None,
            },
        )
}

fn counters() -> impl Strategy<Value = CounterRequest> {
    (
        0_u64..6,
        meters(),
        1_u64..4,
        prop_oneof![Just(Vec::new()), filters()],
        boundaries(),
    )
        .prop_map(|(counter, meter, customer, filters, boundaries)| CounterRequest {
            counter,
            meter,
            customer,
            filters,
            boundaries,
        })
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => seen().prop_map(Step::Fold),
        2 => seen().prop_map(Step::Observe),
        3 => Just(Step::Freeze),
        3 => Just(Step::Write),
        2 => Just(Step::Discard),
        2 => Just(Step::Compact),
        1 => Just(Step::Merge),
        3 => (subjects(), spans()).prop_map(|(subject, spans)| Step::SetSubject(subject, spans)),
        4 => counters().prop_map(Step::PutCounter),
        1 => (0_u64..6).prop_map(Step::DropCounter),
        4 => queries().prop_map(Step::Query),
    ]
}

impl World {
    fn new() -> Self {
        let mut windows = Windows::new(1);
        (0..7).for_each(|meter| windows.put_meter(spec(meter)));
        Self {
            windows: Some(windows),
            ..Self::default()
        }
    }

    fn windows(&mut self) -> &mut Windows {
        self.windows.as_mut().unwrap()
    }

    fn payloads(&self, meter: u32) -> Vec<Vec<u8>> {
        self.blocks
            .iter()
            .filter(|block| block.meter == meter)
            .map(|block| block.payload.clone())
            .collect()
    }

    fn observe(&mut self, seen: Vec<Seen>) {
        for seen in seen {
            let dimensions: Vec<&str> = seen.dimensions.iter().map(String::as_str).collect();
            let group = self.windows().group(seen.meter, &key(&seen.subject, &dimensions));
            let index = u32::try_from(self.pending.len()).unwrap();
            self.pending.push(Point {
                value: seen.value,
                time_us: seen.time_us,
                group,
                index,
            });
            self.observed.push(Seen { index, ..seen });
        }
    }

    fn fold(&mut self, seen: Vec<Seen>) {
        self.observe(seen);
        let position = self.model.position + 1;
        let points = std::mem::take(&mut self.pending);
        self.windows().fold(&points, position);
        let observed = std::mem::take(&mut self.observed).into_iter();
        self.model
            .fold(observed.map(|seen| Seen { position, ..seen }).collect(), position);
    }

    fn write(&mut self) {
        if self.frozen.is_empty() {
            return;
        }
        let part = self.frozen.remove(0);
        self.blocks.extend(part.blocks.iter().cloned());
        self.checkpoint = part.position;
        self.written.push(part);
    }

    fn discard(&mut self) {
        // The last of those written stands for all before it.
        let last = self.written.pop();
        self.written.clear();
        if let Some(part) = last {
            self.windows().discard(part.number);
        }
    }

    fn merge(&mut self) {
        let places: BTreeSet<(u32, i32)> = self.blocks.iter().map(|block| (block.meter, block.day)).collect();
        let blocks = std::mem::take(&mut self.blocks);
        for (meter, day) in places {
            let of = blocks
                .iter()
                .filter(|block| (block.meter, block.day) == (meter, day));
            let payloads: Vec<&[u8]> = of.map(|block| block.payload.as_slice()).collect();
            self.blocks
                .extend(merge_blocks(1, meter, day, &payloads).unwrap());
        }
    }

    fn put_counter(&mut self, request: CounterRequest) {
        let payloads = self.payloads(request.meter);
        let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        let checkpoint = self.checkpoint;
        // One by one, or two of a number in one pass: the last counts.
        if request.counter.is_multiple_of(2) {
            self.windows()
                .put_counter(request.clone(), &payloads, checkpoint)
                .unwrap();
        } else {
            let mut other = request.clone();
            other.boundaries.truncate(2);
            self.windows()
                .put_counters(&columns(&[other, request.clone()]), &payloads, checkpoint)
                .unwrap();
        }
        self.model.put_counter(request);
    }

    fn query(&mut self, request: &QueryRequest) {
        let payloads = self.payloads(request.meter);
        let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        let checkpoint = self.checkpoint;
        let result = self.windows().query(request, &payloads, checkpoint).unwrap();
        assert_eq!(result, self.model.query(request), "{request:?}");
        require_pages(self.windows(), request, &payloads, checkpoint, &result);
        survey::is_as_queries(self.windows(), request, &payloads, checkpoint);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Fold(seen) => self.fold(seen),
            Step::Observe(seen) => self.observe(seen),
            Step::Freeze => {
                let part = self.windows().freeze();
                self.frozen.push(part);
            }
            Step::Write => self.write(),
            Step::Discard => self.discard(),
            Step::Compact => {
                let mut pending = std::mem::take(&mut self.pending);
                self.windows().compact_groups(&mut [&mut pending]);
                self.pending = pending;
            }
            Step::Merge => self.merge(),
            Step::SetSubject(subject, spans) => {
                self.windows().set_subject(&subject, spans.clone());
                self.model.owners.insert(subject, spans);
            }
            Step::PutCounter(request) => self.put_counter(request),
            Step::DropCounter(counter) => {
                self.windows().drop_counter(counter);
                self.model.counters.remove(&counter);
            }
            Step::Query(request) => self.query(&request),
        }
    }

    fn check_counters(&mut self) {
        assert_eq!(
            self.windows.as_ref().unwrap().counter_count(),
            self.model.counters.len()
        );
        for (&counter, (request, _)) in &self.model.counters {
            for minute in request
                .boundaries
                .iter()
                .flat_map(|&boundary| [boundary - 1, boundary])
            {
                let usage = self.windows.as_ref().unwrap().usage(counter, minute);
                match self.model.usage(counter, minute) {
                    Some(expected) => assert_eq!(usage, Ok(expected), "{request:?}"),
                    None => assert_eq!(usage.unwrap_err().reason, Reason::OutOfRange),
                }
            }
            self.check_several_spans(counter, &request.boundaries);
        }
    }

    fn check_several_spans(&self, counter: u64, edges: &[i32]) {
        let (windows, model) = (self.windows.as_ref().unwrap(), &self.model);
        let restarts: Vec<i32> = edges.iter().copied().step_by(2).collect();
        let (boundaries, running) = windows.running(counter, &restarts).unwrap();
        assert_eq!(boundaries, edges);
        for (span, edge) in edges.windows(2).enumerate() {
            let restart = edges[span - span % 2];
            assert_eq!(running[span], model.between(counter, restart, edge[1]).0);
            for &since in &edges[..=span] {
                let found = windows.usage_since(counter, since, edge[0]).unwrap();
                assert_eq!(found.quantity, model.between(counter, since, edge[1]).0);
                assert_eq!((found.from_minute, found.to_minute), (edge[0], edge[1]));
                assert_eq!(found.events_before, model.between(counter, edges[0], edge[0]).1);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_answers_are_those_of_the_model(steps in vec(steps(), 1..40)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check_counters();
        }
        for meter in 0..AGGREGATIONS.len() {
            let group_by = texts(&["subject", "customer", "model", "region"]);
            let boundaries = vec![-2000, 0, 1440, 4000];
            let meter = u32::try_from(meter).unwrap();
            world.query(&QueryRequest { meter, boundaries, group_by, ..QueryRequest::default() });
        }
    }
}
