//! Clients, two processes that want to write, and what may become of them.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use _native::SealedGroup;
use _native::engine::{Engine, Settings};
use _native::error::Reason;
use _native::freeze::Frozen;
use _native::identity::{DraftRun, RunFiles};
use _native::meter::{Aggregation, MeterSpec, minute_of};
use _native::replay::Replay;
use _native::response::Receipt;
use _native::windows::QueryRequest;

use crate::Rng;
use crate::database::{Database, Tenant};
use crate::sample::{DAY, KEY, NOW, ONE, Sample, event, request, settings, tokens};

const TENANTS: [u32; 2] = [1, 2];
const EVENTS: usize = 40;

/// An event that a client wants to be counted.
#[derive(Clone)]
struct Fact {
    id: usize,
    value: usize,
}

impl Fact {
    /// The same every time it is sent; some leave the time to the server.
    fn sample(&self) -> Sample {
        let back = i64::try_from(self.id % 5).unwrap() * DAY / 3;
        event(format!("e{}", self.id))
            .at((!self.id.is_multiple_of(7)).then_some(NOW - back))
            .with("model", ["a", "b", "c"][self.id % 3])
            .with("n", &self.value.to_string())
    }
}

struct Request {
    tenant: u32,
    facts: Vec<Fact>,
    acknowledged: bool,
}

/// A process: it stands by with an engine that knows identities, or writes.
struct Process {
    engine: Engine,
    /// 0: stands by.
    epoch: u64,
    /// Requests to be answered when their group is durable.
    waiting: Vec<(usize, Receipt)>,
    durable: u64,
    /// The outcome of an attempt to commit is not known.
    unsure: bool,
    unwritten: VecDeque<Frozen>,
    /// A file of identities that is to be placed.
    draft: Option<DraftRun>,
}

pub struct World {
    /// Some worlds keep old identities in files, one directory for each process.
    places: Option<[PathBuf; 2]>,
    rng: Rng,
    now_us: i64,
    db: Database,
    processes: [Option<Process>; 2],
    requests: Vec<Request>,
    /// Commits that were sent and may still arrive.
    late: Vec<(u64, Arc<SealedGroup>)>,
    recoveries: u64,
    fenced: u64,
    unknown: u64,
}

fn meters() -> [MeterSpec; 2] {
    let count = MeterSpec {
        id: 2,
        key: "requests".into(),
        aggregation: Aggregation::Count,
        value_property: String::new(),
        ..tokens()
    };
    [tokens(), count]
}

impl World {
    pub fn new(mut rng: Rng) -> Self {
        let places = rng.chance(25).then(|| {
            let world = rng.next();
            [0, 1].map(|process| place(world, process))
        });
        let mut db = Database::default();
        for tenant in TENANTS {
            db.tenants.insert(tenant, Tenant::default());
        }
        let mut world = Self {
            places,
            rng,
            now_us: NOW,
            db,
            processes: [None, None],
            requests: Vec::new(),
            late: Vec::new(),
            recoveries: 0,
            fenced: 0,
            unknown: 0,
        };
        world.take_over(0);
        world
    }

    /// Events durable, recoveries, writers fenced, commits of unknown outcome.
    pub fn figures(&self) -> [u64; 4] {
        let events = self.db.tenants.values().map(|tenant| tenant.events.len() as u64);
        [events.sum(), self.recoveries, self.fenced, self.unknown]
    }

    pub fn step(&mut self) {
        self.now_us += i64::try_from(self.rng.below(1000)).unwrap();
        let at = self.rng.below(2);
        match self.rng.below(100) {
            0..35 => self.send(at),
            35..65 => self.commit(at, true),
            65..73 => self.freeze(at),
            73..81 => self.write(at, true),
            81..84 => self.crash(at),
            84..87 => self.stand_by(at),
            87..90 => self.take_over(at),
            90..92 => self.arrive_late(),
            92..94 => self.tidy(at),
            94..96 => self.db.merge(TENANTS[at]),
            96..98 => self.check(at),
            _ => self.let_time_pass(),
        }
    }

    /// All ends well: everything is sent until it is answered, and counted anew.
    pub fn settle(&mut self) {
        self.take_over(0);
        while !self.late.is_empty() {
            self.arrive_late();
        }
        for number in 0..self.requests.len() {
            if !self.requests[number].acknowledged {
                self.deliver(0, number);
            }
        }
        while self.process(0).engine.pending_bytes() > 0 {
            self.commit(0, false);
        }
        assert!(self.requests.iter().all(|request| request.acknowledged));
        self.check(0);
        self.freeze(0);
        while !self.process(0).unwritten.is_empty() {
            self.write(0, false);
        }
        self.check(0);
        self.crash(0);
        self.take_over(0);
        self.check(0);
    }

    fn process(&mut self, at: usize) -> &mut Process {
        self.processes[at].as_mut().unwrap()
    }

    fn writer(&self, at: usize) -> Option<&Process> {
        self.processes[at].as_ref().filter(|process| process.epoch > 0)
    }

    // Clients

    fn send(&mut self, at: usize) {
        let again = self.rng.chance(40) && !self.requests.is_empty();
        let number = if again {
            self.rng.below(self.requests.len())
        } else {
            let size = 1 + self.rng.below(4);
            let facts = (0..size).map(|_| Fact {
                id: self.rng.below(EVENTS),
                value: 1 + self.rng.below(2),
            });
            let facts = facts.collect();
            let tenant = TENANTS[self.rng.below(2)];
            self.requests.push(Request {
                tenant,
                facts,
                acknowledged: false,
            });
            self.requests.len() - 1
        };
        // Lost on the way, delivered, or delivered twice.
        let copies = [0, 1, 1, 1, 2][self.rng.below(5)];
        for _ in 0..copies {
            self.deliver(at, number);
        }
    }

    fn deliver(&mut self, at: usize, number: usize) {
        let Some(process) = self.processes[at].as_mut().filter(|process| process.epoch > 0) else {
            return;
        };
        let asked = &self.requests[number];
        let samples: Vec<_> = asked.facts.iter().map(Fact::sample).collect();
        let receipt = process
            .engine
            .admit(asked.tenant, &request(&samples), self.now_us)
            .unwrap();
        assert_eq!(receipt.rejected, 0);
        process.waiting.push((number, receipt));
        self.answer(at);
    }

    /// Acknowledges what is durable; the answer may get lost.
    fn answer(&mut self, at: usize) {
        let durable = self.process(at).durable;
        let waiting = std::mem::take(&mut self.process(at).waiting);
        for (number, receipt) in waiting {
            if receipt.group > durable {
                self.process(at).waiting.push((number, receipt));
                continue;
            }
            let request = &self.requests[number];
            let tenant = &self.db.tenants[&request.tenant];
            let seen = self.writer(at).unwrap().engine.position(request.tenant).unwrap();
            for fact in &request.facts {
                let stored = tenant.events.get(&format!("e{}", fact.id));
                let stored = stored.unwrap_or_else(|| panic!("e{} is acknowledged and lost", fact.id));
                assert!(stored.position <= seen, "acknowledged, but not to be read");
            }
            if self.rng.chance(80) || self.late.is_empty() {
                self.requests[number].acknowledged = true;
            }
        }
    }

    // The commit worker

    fn commit(&mut self, at: usize, faults: bool) {
        let now_us = self.now_us;
        let Some(process) = self.processes[at].as_mut().filter(|process| process.epoch > 0) else {
            return;
        };
        let epoch = process.epoch;
        let Some(group) = process.engine.seal(now_us).unwrap() else {
            return;
        };
        if !process.unsure {
            let fate = if faults { self.rng.below(10) } else { 9 };
            match fate {
                0 => return self.doubt(at),
                1 => {
                    self.db.append(epoch, &group);
                    return self.doubt(at);
                }
                2 => {
                    self.late.push((epoch, group));
                    return self.doubt(at);
                }
                _ if self.db.append(epoch, &group) => return self.fold(at, &group),
                _ => {}
            }
        }
        // The chain tells what became of it.
        if self.db.is_durable(&group) {
            return self.fold(at, &group);
        }
        if faults && self.rng.chance(20) {
            return self.doubt(at);
        }
        if self.db.append(epoch, &group) {
            return self.fold(at, &group);
        }
        assert_ne!(self.db.epoch, epoch, "memory and database disagree");
        self.fenced += 1;
        self.processes[at] = None;
    }

    fn doubt(&mut self, at: usize) {
        self.unknown += 1;
        self.process(at).unsure = true;
    }

    fn fold(&mut self, at: usize, group: &SealedGroup) {
        let process = self.process(at);
        process.unsure = false;
        process.engine.fold(group).unwrap();
        process.durable = group.number;
        self.answer(at);
    }

    fn arrive_late(&mut self) {
        if !self.late.is_empty() {
            let which = self.rng.below(self.late.len());
            let (epoch, group) = self.late.swap_remove(which);
            self.db.append(epoch, &group);
        }
    }

    // The checkpoint worker

    fn freeze(&mut self, at: usize) {
        if self.writer(at).is_some() {
            let process = self.process(at);
            let frozen = process.engine.freeze();
            process.unwritten.push_back(frozen);
        }
    }

    fn write(&mut self, at: usize, faults: bool) {
        let Some(process) = self.processes[at].as_mut().filter(|process| process.epoch > 0) else {
            return;
        };
        let epoch = process.epoch;
        let Some(oldest) = process.unwritten.front() else {
            return;
        };
        let fate = if faults { self.rng.below(10) } else { 9 };
        match fate {
            0 => {}
            1 => self.processes[at] = None,
            // Written, and nobody is told.
            2 => drop(self.db.write(epoch, oldest)),
            3 => {
                self.db.write(epoch, oldest);
                self.processes[at] = None;
            }
            _ => {
                if self.db.write(epoch, oldest) {
                    process.engine.discard(oldest);
                    process.unwritten.pop_front();
                }
            }
        }
    }

    // Lives and deaths

    fn crash(&mut self, at: usize) {
        self.processes[at] = None;
    }

    /// Opens what is new and reads identities up to the heads.
    fn stand_by(&mut self, at: usize) {
        if self.writer(at).is_some() {
            return;
        }
        let (db, now_us) = (&self.db, self.now_us);
        let place = self.places.as_ref().map(|places| &places[at]);
        let process = self.processes[at].get_or_insert_with(|| Process {
            engine: begin(place, db, now_us),
            epoch: 0,
            waiting: Vec::new(),
            durable: 0,
            unsure: false,
            unwritten: VecDeque::new(),
            draft: None,
        });
        for (&id, tenant) in &self.db.tenants {
            let known = process.engine.position(id).unwrap();
            replay(&process.engine, tenant, known, false, self.now_us);
        }
    }

    /// Takes the epoch, whoever has it; then windows from the checkpoint on.
    fn take_over(&mut self, at: usize) {
        if self
            .writer(at)
            .is_some_and(|process| process.epoch == self.db.epoch)
        {
            return;
        }
        if self.writer(at).is_some() {
            self.processes[at] = None;
        }
        self.recoveries += 1;
        let epoch = self.db.take_epoch();
        self.stand_by(at);
        let process = self.processes[at].as_mut().unwrap();
        process.epoch = epoch;
        for (&id, tenant) in &self.db.tenants {
            for spec in meters() {
                process.engine.put_meter(id, Arc::new(spec)).unwrap();
            }
            let digest = tenant.digest_at(tenant.checkpoint);
            process.engine.rewind(id, tenant.checkpoint, digest).unwrap();
            replay(&process.engine, tenant, tenant.checkpoint, true, self.now_us);
        }
    }

    /// Something is done about files of identities, or happens to them.
    fn tidy(&mut self, at: usize) {
        let (now_us, id) = (self.now_us, TENANTS[self.rng.below(2)]);
        let Some(place) = self.places.as_ref().map(|places| &places[at]) else {
            return;
        };
        if self.rng.chance(10) {
            self.processes[at] = None;
            let files = std::fs::read_dir(place).unwrap().flatten();
            for file in files.map(|entry| entry.path()) {
                match self.rng.below(4) {
                    0 => std::fs::remove_file(file).unwrap(),
                    1 => std::fs::write(file, b"damaged").unwrap(),
                    _ => {}
                }
            }
            return;
        }
        let Some(process) = self.processes[at].as_mut() else {
            return;
        };
        let engine = &process.engine;
        for _ in 0..6 {
            match (self.rng.below(5), process.draft.take()) {
                (0, Some(draft)) => engine.give_up_run(&draft).unwrap(),
                (1, None) => drop(engine.merge_runs(id, now_us).unwrap()),
                (2, None) => drop(engine.move_out_identities(id, now_us).unwrap()),
                (_, Some(mut draft)) => {
                    let placed = engine.place_run(&mut draft).unwrap();
                    process.draft = (!placed).then_some(draft);
                }
                (_, None) => process.draft = engine.save_identities(id, 1).unwrap(),
            }
        }
    }

    fn let_time_pass(&mut self) {
        let days = i64::try_from(self.rng.below(30)).unwrap();
        self.now_us = (self.now_us + days * DAY).min(NOW + 30 * DAY);
        for process in self.processes.iter().flatten() {
            let expired = process.engine.expire_identities(self.now_us);
            assert_eq!(
                expired, 0,
                "an identity was forgotten while its event may come again"
            );
        }
    }

    /// Queries give what durable events add up to.
    fn check(&mut self, at: usize) {
        let Some(process) = self.writer(at) else { return };
        // The blocks are those of the newest writer.
        if process.epoch != self.db.epoch {
            return;
        }
        for (&id, tenant) in &self.db.tenants {
            let position = process.engine.position(id).unwrap();
            let totals = tenant.totals(position);
            for (spec, factor) in meters().iter().zip([true, false]) {
                let expected: BTreeMap<String, i128> = totals
                    .iter()
                    .map(|(model, (value, count))| {
                        let quantity = if factor { value } else { count };
                        (model.clone(), i128::from(*quantity) * ONE)
                    })
                    .collect();
                assert_eq!(query(&process.engine, id, spec.id, tenant), expected);
            }
        }
    }
}

/// A directory of one process of one world, empty.
fn place(world: u64, process: u64) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let temporary = std::env::temp_dir();
    let path = if memory.is_dir() { memory } else { &temporary };
    let path = path.join(format!(
        "ammeter-world-{}-{world:x}-{process}",
        std::process::id()
    ));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// An engine that knows what files say, where the chain bears them out.
fn begin(place: Option<&PathBuf>, db: &Database, now_us: i64) -> Engine {
    let run_files = place.map(|place| RunFiles {
        directory: place.clone(),
        hot_us: DAY,
        sync: false,
    });
    let settings = Settings {
        run_files,
        ..settings()
    };
    let engine = Engine::new(&KEY, settings).unwrap();
    for (&id, tenant) in &db.tenants {
        engine.open_tenant(id, 0, [0; 32]);
        if place.is_some() {
            let tags = engine.stored_runs(id).unwrap();
            let borne_out = tags.iter().take_while(|tag| {
                tag.position <= tenant.head() && tenant.digest_at(tag.position) == tag.digest
            });
            let known = engine.load_runs(id, borne_out.count(), 0, now_us).unwrap();
            engine.rewind(id, known, tenant.digest_at(known)).unwrap();
        }
    }
    engine
}

impl Drop for World {
    fn drop(&mut self) {
        self.processes = [None, None];
        for place in self.places.iter().flatten() {
            let _ = std::fs::remove_dir_all(place);
        }
    }
}

/// Segments after a position: their identities, or with `fold` their usage.
fn replay(engine: &Engine, tenant: &Tenant, after: u64, fold: bool, now_us: i64) {
    let rows: Vec<_> = tenant
        .segments
        .iter()
        .skip(usize::try_from(after).unwrap())
        .map(|segment| segment.row())
        .collect();
    let Some(first) = rows.first() else { return };
    let replay = Replay {
        tenant: first.header.tenant,
        rows: &rows,
        upto: u64::MAX,
        known: if fold { u64::MAX } else { after },
        fold,
        now_us,
    };
    engine.replay(&replay).unwrap();
}

fn query(engine: &Engine, id: u32, meter: u32, tenant: &Tenant) -> BTreeMap<String, i128> {
    let blocks: Vec<&[u8]> = tenant
        .blocks
        .iter()
        .filter(|block| block.meter == meter)
        .map(|block| &block.payload[..])
        .collect();
    let asked = QueryRequest {
        meter,
        boundaries: vec![minute_of(NOW - 40 * DAY), minute_of(NOW + 40 * DAY)],
        group_by: vec!["model".into()],
        filters: vec![],
        subjects: vec![],
        customers: vec![],
        page: None,
    };
    match engine.query(id, &asked, &blocks, tenant.checkpoint) {
        Ok(found) => found.groups[0].iter().cloned().zip(found.values).collect(),
        Err(error) => {
            assert_ne!(error.reason, Reason::StaleSnapshot, "nothing else writes blocks");
            panic!("{}", error.message)
        }
    }
}
