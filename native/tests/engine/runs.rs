//! Identities on disk: whatever is saved, moved out, merged, damaged or gone,
//! each event counts once and a conflict names the first content.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use _native::engine::Engine;
use _native::error::{EngineError, Reason};
use _native::identity::RunFiles;
use _native::replay::Replay;
use _native::segment::Segment;
use proptest::prelude::*;

use crate::sample::*;

/// A directory of one test's own, gone with it.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ammeter-engine-{}-{number}", std::process::id());
        let memory = Path::new("/dev/shm");
        let temporary = std::env::temp_dir();
        let path = if memory.is_dir() { memory } else { &temporary }.join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// An engine, its database, and what it must know.
struct Life {
    place: Place,
    engine: Engine,
    now_us: i64,
    chain: Vec<Arc<Segment>>,
    /// By id: the first content, and when it may be forgotten.
    model: HashMap<usize, (usize, i64)>,
}

impl Life {
    fn new() -> Self {
        let place = Place::new();
        let engine = start(&place, &[], NOW);
        Self {
            place,
            engine,
            now_us: NOW,
            chain: Vec::new(),
            model: HashMap::new(),
        }
    }

    /// What an event is, if it is still known whether it was seen.
    fn is_certain(&self, id: usize) -> bool {
        self.model.get(&id).is_none_or(|(_, until)| *until >= self.now_us)
    }

    /// Sends some events in one request.
    fn send(&mut self, facts: &[(usize, usize)], commit: bool) {
        let (certain, uncertain): (Vec<_>, Vec<_>) = facts.iter().partition(|(id, _)| self.is_certain(*id));
        let mut expected = (0, 0, 0, 0);
        for &(id, value) in &certain {
            let until = self.now_us + 35 * DAY;
            match self.model.get(&id) {
                None => {
                    self.model.insert(id, (value, until));
                    expected.0 += 1;
                }
                Some((first, _)) if *first == value => expected.1 += 1,
                Some(_) => expected.2 += 1,
            }
        }
        assert_eq!(self.admit(&certain), expected, "{facts:?}");
        for (id, value) in uncertain {
            self.send_uncertain(id, value);
        }
        if commit {
            self.commit();
        }
    }

    /// An event that may be forgotten, or not yet.
    fn send_uncertain(&mut self, id: usize, value: usize) {
        let first = self.model.get(&id).map(|(first, _)| *first);
        match self.admit(&[(id, value)]) {
            (1, 0, 0, 0) => drop(self.model.insert(id, (value, self.now_us + 35 * DAY))),
            (0, 1, 0, 0) => assert_eq!(first, Some(value)),
            _ => assert_ne!(first, Some(value)),
        }
    }

    /// As the server does it: first without the disk; from a damaged file, by starting anew.
    fn admit(&mut self, facts: &[(usize, usize)]) -> (u32, u32, u32, u32) {
        let samples: Vec<_> = facts.iter().map(|(id, value)| sample(*id, *value)).collect();
        let body = request(&samples);
        if let Some(receipt) = self.engine.try_admit(TENANT, &body, self.now_us).unwrap() {
            return counts(&receipt);
        }
        loop {
            let admitted = self.engine.admit(TENANT, &body, self.now_us);
            if let Some(receipt) = self.or_restart(admitted) {
                return counts(&receipt);
            }
        }
    }

    fn or_restart<T>(&mut self, done: Result<T, EngineError>) -> Option<T> {
        done.inspect_err(|error| {
            assert_eq!(error.reason, Reason::DamagedRun);
            self.restart();
        })
        .ok()
    }

    fn commit(&mut self) {
        while let Some(sealed) = self.engine.seal(self.now_us).unwrap() {
            self.chain.extend(sealed.segments.iter().cloned());
            self.engine.fold(&sealed).unwrap();
        }
    }

    fn save(&mut self) {
        if let Some(mut draft) = self.engine.save_identities(TENANT, 1).unwrap() {
            if !self.engine.place_run(&mut draft).unwrap() {
                // Not all it has is durable: it is not to be placed.
                assert!(self.engine.pending_bytes() > 0);
                self.commit();
                assert!(self.engine.place_run(&mut draft).unwrap());
            }
        }
    }

    fn begin_and_give_up(&self) {
        if let Some(draft) = self.engine.save_identities(TENANT, 1).unwrap() {
            assert_eq!(self.engine.move_out_identities(TENANT, self.now_us), Ok(0));
            self.engine.give_up_run(&draft).unwrap();
        }
    }

    fn restart(&mut self) {
        self.commit();
        self.engine = start(&self.place, &self.chain, self.now_us);
    }
}

fn sample(id: usize, value: usize) -> Sample {
    event(format!("e{id}"))
        .at(None)
        .with("model", "a")
        .with("n", &value.to_string())
}

/// As a server starts: runs that the chain bears out, then the segments after.
fn start(place: &Place, chain: &[Arc<Segment>], now_us: i64) -> Engine {
    let run_files = RunFiles {
        directory: place.0.clone(),
        hot_us: 2 * DAY,
        sync: false,
    };
    let settings = _native::engine::Settings {
        run_files: Some(run_files),
        ..settings()
    };
    let engine = Engine::new(&KEY, settings).unwrap();
    engine.open_tenant(TENANT, 0, [0; 32]);
    let digest_at = |position: u64| {
        let before = usize::try_from(position).unwrap().checked_sub(1);
        before.map_or(Some([0; 32]), |at| chain.get(at).map(|segment| segment.digest))
    };
    let tags = engine.stored_runs(TENANT).unwrap();
    let trusted = tags
        .iter()
        .take_while(|tag| digest_at(tag.position) == Some(tag.digest));
    let after = engine.load_runs(TENANT, trusted.count(), 0, now_us).unwrap();
    engine.rewind(TENANT, after, digest_at(after).unwrap()).unwrap();
    let rows: Vec<_> = chain[usize::try_from(after).unwrap()..]
        .iter()
        .map(|segment| segment.row())
        .collect();
    let replay = Replay {
        tenant: TENANT,
        rows: &rows,
        upto: u64::MAX,
        known: after,
        fold: false,
        now_us,
    };
    engine.replay(&replay).unwrap();
    engine
}

#[test]
fn old_identities_leave_memory_and_are_found_before_and_after_a_restart() {
    let mut life = Life::new();
    for id in 0..100 {
        life.send(&[(2 * id, 1), (2 * id + 1, 1)], true);
        life.now_us += DAY / 10;
    }
    life.save();
    let moved = life.engine.move_out_identities(TENANT, life.now_us).unwrap();
    let stats = life.engine.stats();
    assert_eq!((moved + stats.identities, stats.old_identities), (200, 200));
    assert!(moved > 100, "{moved}");
    for id in 0..200 {
        life.send(&[(id, 1)], false);
        life.send(&[(id, 2)], false);
    }
    assert_eq!(life.engine.pending_bytes(), 0);
    life.restart();
    assert_eq!(life.engine.stats().unsaved_identities, 0);
    assert_eq!(life.engine.stats().identities, stats.identities);
    for id in 0..200 {
        life.send(&[(id, 1), (id, 2)], false);
    }
    for file in life.place.files() {
        fs::remove_file(file).unwrap();
    }
    life.restart();
    assert_eq!(life.engine.stats().unsaved_identities, 200);
    for id in 0..200 {
        life.send(&[(id, 1), (id, 2)], false);
    }
}

#[test]
fn nothing_is_paid_and_nothing_waits_while_no_run_is_looked_into() {
    let mut life = Life::new();
    life.send(&[(1, 1)], true);
    life.save();
    let again = request(&[sample(1, 1)]);
    assert!(
        life.engine
            .try_admit(TENANT, &again, life.now_us)
            .unwrap()
            .is_some()
    );
    life.now_us += 3 * DAY;
    assert_eq!(life.engine.move_out_identities(TENANT, life.now_us), Ok(1));
    // The answer is on the disk: whoever may not wait hears so.
    assert!(
        life.engine
            .try_admit(TENANT, &again, life.now_us)
            .unwrap()
            .is_none()
    );
    assert_eq!(life.engine.stats().run_lookups, 0);
    assert_eq!(
        counts(&life.engine.admit(TENANT, &again, life.now_us).unwrap()),
        (0, 1, 0, 0)
    );
    let stats = life.engine.stats();
    assert_eq!((stats.run_lookups, stats.filter_mistakes), (1, 0));
}

#[test]
fn a_run_of_another_history_is_not_used() {
    let mut life = Life::new();
    for id in 0..10 {
        life.send(&[(id, 1)], true);
    }
    life.save();
    // The database was put back to an earlier state, and went on otherwise.
    life.chain.truncate(4);
    life.model.retain(|id, _| *id < 4);
    life.restart();
    assert!(life.place.files().is_empty());
    for id in 0..10 {
        life.send(&[(id, 1)], true);
    }
}

#[test]
fn runs_that_hold_nothing_acceptable_are_removed() {
    let mut life = Life::new();
    for id in 0..5 {
        life.send(&[(id, 1)], true);
        life.save();
        life.now_us += 20 * DAY;
    }
    assert_eq!(life.engine.expire_runs(TENANT, life.now_us), Ok(4));
    assert_eq!(life.place.files().len(), 1);
}

#[test]
fn a_disk_that_takes_nothing_leaves_all_in_memory() {
    let mut life = Life::new();
    life.send(&[(1, 1)], true);
    fs::remove_dir_all(&life.place.0).unwrap();
    let error = life.engine.save_identities(TENANT, 1).unwrap_err();
    assert_eq!(error.reason, Reason::Disk);
    life.now_us += 9 * DAY;
    assert_eq!(life.engine.move_out_identities(TENANT, life.now_us), Ok(0));
    life.send(&[(1, 1)], true);
    fs::create_dir_all(&life.place.0).unwrap();
    life.save();
    assert_eq!(life.engine.move_out_identities(TENANT, life.now_us), Ok(1));
    life.send(&[(1, 1)], true);
}

#[derive(Clone, Debug)]
enum Step {
    Send(Vec<(usize, usize)>, bool),
    Pass(i64),
    Commit,
    Save,
    GiveUp,
    MoveOut,
    Merge,
    Expire,
    Restart,
    /// Flip a byte of a file, cut it, remove it or leave half of another; then restart.
    Damage(usize, usize, u8),
    /// Flip a byte while the engine runs.
    Rot(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let facts = prop::collection::vec((0..60_usize, 0..2_usize), 1..5);
    let step = prop_oneof![
        8 => (facts, any::<bool>()).prop_map(|(facts, commit)| Step::Send(facts, commit)),
        4 => (1..10_i64).prop_map(Step::Pass),
        2 => Just(Step::Commit),
        5 => Just(Step::Save),
        1 => Just(Step::GiveUp),
        4 => Just(Step::MoveOut),
        2 => Just(Step::Merge),
        1 => Just(Step::Expire),
        2 => Just(Step::Restart),
        1 => (any::<usize>(), any::<usize>(), 0..4_u8).prop_map(|(a, b, c)| Step::Damage(a, b, c)),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Step::Rot(a, b)),
    ];
    prop::collection::vec(step, 1..80)
}

impl Life {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Send(facts, commit) => self.send(facts, *commit),
            Step::Pass(quarters) => self.now_us += quarters * DAY / 4,
            Step::Commit => self.commit(),
            Step::Save => self.save(),
            Step::GiveUp => self.begin_and_give_up(),
            Step::MoveOut => {
                let moved = self.engine.move_out_identities(TENANT, self.now_us);
                self.or_restart(moved);
            }
            Step::Merge => loop {
                let merged = self.engine.merge_runs(TENANT, self.now_us);
                if self.or_restart(merged) != Some(true) {
                    break;
                }
            },
            Step::Expire => {
                let _ = self.engine.expire_identities(self.now_us);
                self.engine.expire_runs(TENANT, self.now_us).unwrap();
            }
            Step::Restart => self.restart(),
            Step::Damage(which, place, how) => {
                self.damage(*which, *place, *how);
                self.restart();
            }
            Step::Rot(which, place) => self.rot(*which, *place),
        }
    }

    fn damage(&self, which: usize, place: usize, how: u8) {
        let files = self.place.files();
        if files.is_empty() {
            return;
        }
        let file = &files[which % files.len()];
        let mut bytes = fs::read(file).unwrap();
        let at = place % bytes.len();
        match how {
            0 => bytes[at] ^= 1 << (place % 8),
            1 => bytes.truncate(at),
            2 => return fs::remove_file(file).unwrap(),
            // As a crash leaves it before the file has its name.
            _ => return fs::write(file.with_extension("new"), &bytes[..at]).unwrap(),
        }
        fs::write(file, bytes).unwrap();
    }

    /// Whoever meets the damage is refused, and the next start makes up for it.
    fn rot(&mut self, which: usize, place: usize) {
        self.commit();
        self.damage(which, place, 0);
        for id in 0..60 {
            let body = request(&[sample(id, 1)]);
            let before = self.engine.pending_bytes();
            match self.engine.admit(TENANT, &body, self.now_us) {
                Ok(_) if before < self.engine.pending_bytes() => {
                    let known = self.model.insert(id, (1, self.now_us + 35 * DAY));
                    assert!(known.is_none_or(|(_, until)| until < self.now_us));
                }
                Ok(receipt) => {
                    let duplicate = self.model.get(&id).is_some_and(|(first, _)| *first == 1);
                    assert_eq!(receipt.duplicates == 1, duplicate);
                }
                Err(error) => {
                    assert_eq!(error.reason, Reason::DamagedRun);
                    break;
                }
            }
        }
        self.restart();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn files_change_no_answer(steps in steps()) {
        let mut life = Life::new();
        for step in &steps {
            life.take(step);
        }
        life.restart();
        let known: Vec<_> = life.model.iter().map(|(id, (first, _))| (*id, *first)).collect();
        for fact in known {
            life.send(&[fact], true);
        }
    }
}
