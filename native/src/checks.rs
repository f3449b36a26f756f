//! Answers to checks, from bytes to bytes: questions that were answered before are decided anew and
//! not read again. Whoever asks first decides which right a question is about, and tells.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ahash::RandomState;
use hashbrown::{Equivalent, HashMap, HashSet};

use crate::decimal::format;
use crate::meter::Quantity;
use crate::windows::Windows;
use crate::wire::{Reader, Value, put_bytes, put_number, put_text};

/// More questions than this are forgotten together.
const MOST: usize = 65_536;
/// As many checks as a batch has.
const MOST_AT_ONCE: u32 = 1_000;

/// How an answer about a balance ends, by its reason: the fields after the period, encoded.
#[derive(Debug, Default)]
pub struct Endings {
    /// For ALLOWED.
    pub allowed: Vec<u8>,
    /// For `ALLOWED_OVER_SOFT_LIMIT`.
    pub over: Vec<u8>,
    /// For `LIMIT_REACHED`.
    pub reached: Vec<u8>,
}

/// What a question is answered from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The same answer always: an encoded `Access`.
    Fixed(Arc<[u8]>),
    /// A balance.
    Metered {
        /// The counter of its usage.
        counter: u64,
        /// What there is to use in a period.
        allowance: Quantity,
        /// How much has to be left; None: anything.
        amount: Option<Quantity>,
        /// Use beyond it is allowed.
        soft_limit: bool,
        /// The rest of the answer.
        endings: Arc<Endings>,
    },
}

/// A question and the right that it is about, in minutes [from, to).
#[derive(Clone, Debug)]
pub struct Known {
    /// Whose.
    pub customer: u64,
    /// First minute.
    pub from_minute: i32,
    /// First minute after.
    pub to_minute: i32,
    /// What it is answered from.
    pub source: Source,
}

#[derive(Debug, PartialEq, Eq)]
struct Question {
    tenant: u32,
    /// An encoded `EntitlementCheck`.
    check: Box<[u8]>,
}

#[derive(PartialEq, Eq, Hash)]
struct Asked<'a>(u32, &'a [u8]);

impl Hash for Question {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Asked(self.tenant, &self.check).hash(state);
    }
}

impl Equivalent<Question> for Asked<'_> {
    fn equivalent(&self, key: &Question) -> bool {
        self.0 == key.tenant && self.1 == &*key.check
    }
}

/// Encoded answers: fields 1 of a response, without those that somebody else has to give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// The fields.
    pub body: Vec<u8>,
    /// What all of them reflect.
    pub position: u64,
    /// ALLOWED.
    pub allowed: u32,
    /// `ALLOWED_OVER_SOFT_LIMIT`.
    pub over: u32,
    /// `LIMIT_REACHED`.
    pub reached: u32,
    /// Questions without an answer by number, and where in the body it belongs.
    pub missing: Vec<(u32, usize)>,
}

/// Known questions.
#[derive(Debug, Default)]
pub struct Checks {
    known: HashMap<Question, Known, RandomState>,
    /// Changes whenever something is forgotten.
    version: u64,
    /// Customers of whose balances something is held: their questions are for others to answer.
    aside: HashSet<(u32, u64), RandomState>,
}

impl Checks {
    /// What `learn` has to be given: read it before looking up what a question is about.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Takes note of what a question is about, unless that may have changed since `version`.
    pub fn learn(&mut self, version: u64, tenant: u32, check: &[u8], known: Known) {
        if version != self.version {
            return;
        }
        if self.known.len() >= MOST {
            self.known.clear();
        }
        let check = check.into();
        self.known.insert(Question { tenant, check }, known);
    }

    /// Forgets what is about these customers.
    pub fn forget(&mut self, tenant: u32, customers: &[u64]) {
        self.version += 1;
        self.known
            .retain(|question, known| question.tenant != tenant || !customers.contains(&known.customer));
    }

    /// Forgets everything.
    pub fn forget_all(&mut self) {
        self.version += 1;
        self.known.clear();
    }

    /// Says whether something is held of a customer's balances.
    pub fn set_aside(&mut self, tenant: u32, customer: u64, aside: bool) {
        if aside {
            self.aside.insert((tenant, customer));
        } else {
            self.aside.remove(&(tenant, customer));
        }
    }

    /// Answers a `CheckEntitlementRequest` or a `BatchCheckEntitlementsRequest` at a minute. None
    /// where it is not a list of at most 1,000 checks, or asks for a later position.
    #[must_use]
    pub fn answer(&self, windows: &Windows, tenant: u32, request: &[u8], minute: i32) -> Option<Answers> {
        let position = windows.position();
        let mut answers = Answers {
            position,
            ..Answers::default()
        };
        let mut reader = Reader::new(request);
        let mut count = 0;
        let mut least_position = 0;
        while let Some((number, value)) = reader.field().ok()? {
            match (number, value) {
                (1, Value::Bytes(check)) if count < MOST_AT_ONCE => {
                    if self
                        .answer_one(windows, tenant, check, minute, &mut answers)
                        .is_none()
                    {
                        answers.missing.push((count, answers.body.len()));
                    }
                    count += 1;
                }
                (2, Value::Varint(position)) => least_position = position.cast_signed(),
                _ => return None,
            }
        }
        (0..=position.cast_signed())
            .contains(&least_position)
            .then_some(answers)
    }

    fn answer_one(
        &self,
        windows: &Windows,
        tenant: u32,
        check: &[u8],
        minute: i32,
        answers: &mut Answers,
    ) -> Option<()> {
        let known = self.known.get(&Asked(tenant, check))?;
        if !(known.from_minute..known.to_minute).contains(&minute)
            || self.aside.contains(&(tenant, known.customer))
        {
            return None;
        }
        let (counter, allowance, amount, soft_limit, endings) = match &known.source {
            Source::Fixed(access) => {
                answers.allowed += 1;
                put_bytes(&mut answers.body, 1, access);
                return Some(());
            }
            Source::Metered {
                counter,
                allowance,
                amount,
                soft_limit,
                endings,
            } => (*counter, *allowance, *amount, *soft_limit, endings),
        };
        let (usage, start, end) = windows.usage(counter, minute).ok()?;
        // Beyond what an i128 holds somebody else has to count.
        let left = allowance.checked_sub(usage)?;
        let enough = amount.map_or(left > 0, |amount| left >= amount);
        let (reason, count, ending) = match (enough, soft_limit) {
            (true, _) => (1, &mut answers.allowed, &endings.allowed),
            (false, true) => (2, &mut answers.over, &endings.over),
            (false, false) => (3, &mut answers.reached, &endings.reached),
        };
        *count += 1;
        let mut access = Vec::with_capacity(160);
        put_number(&mut access, 1, i64::from(enough || soft_limit));
        put_number(&mut access, 2, reason);
        put_text(&mut access, 3, format(left.max(0)).as_bytes());
        put_text(&mut access, 4, format(left.min(0).checked_neg()?).as_bytes());
        put_text(&mut access, 5, format(usage).as_bytes());
        put_text(&mut access, 6, format(allowance).as_bytes());
        put_minute(&mut access, 7, start);
        put_minute(&mut access, 8, end);
        access.extend_from_slice(ending);
        put_bytes(&mut answers.body, 1, &access);
        Some(())
    }
}

/// Appends a `Timestamp`.
fn put_minute(out: &mut Vec<u8>, field: u32, minute: i32) {
    let mut stamp = Vec::with_capacity(12);
    put_number(&mut stamp, 1, i64::from(minute) * 60);
    put_bytes(out, field, &stamp);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(customer: u64, answer: &[u8]) -> Known {
        Known {
            customer,
            from_minute: 10,
            to_minute: 20,
            source: Source::Fixed(answer.into()),
        }
    }

    fn asked(checks: &[&[u8]]) -> Vec<u8> {
        let mut body = Vec::new();
        for check in checks {
            put_bytes(&mut body, 1, check);
        }
        body
    }

    fn body(checks: &Checks, request: &[u8], minute: i32) -> Option<Vec<u8>> {
        let answers = checks.answer(&Windows::new(1), 1, request, minute)?;
        answers.missing.is_empty().then_some(answers.body)
    }

    #[test]
    fn what_is_not_known_is_left_to_others() {
        let mut checks = Checks::default();
        checks.learn(0, 1, b"a", known(1, b"yes"));
        checks.learn(0, 1, b"b", known(2, b"no"));
        let both = Some(asked(&[b"yes", b"no"]));
        assert_eq!(body(&checks, &asked(&[b"a", b"b"]), 10), both);
        let some = checks.answer(&Windows::new(1), 1, &asked(&[b"c", b"a", b"c", b"b"]), 10);
        let missing = some.as_ref().map(|answers| answers.missing.clone());
        assert_eq!(missing, Some(vec![(0, 0), (2, asked(&[b"yes"]).len())]));
        assert_eq!(some.map(|answers| answers.body), both);
        assert_eq!(body(&checks, &asked(&[b"a"]), 9), None, "before its time");
        assert_eq!(body(&checks, &asked(&[b"a"]), 20), None, "after its time");
        let stranger = checks.answer(&Windows::new(2), 2, &asked(&[b"a"]), 10);
        assert_eq!(stranger.map(|answers| answers.missing), Some(vec![(0, 0)]));
    }

    #[test]
    fn what_is_no_plain_request_is_left_to_others() {
        let mut checks = Checks::default();
        checks.learn(0, 1, b"a", known(1, b"yes"));
        for more in [&[0x0a, 9][..], &[0x18, 1], &[0x10, 1], &[0x12, 0]] {
            assert_eq!(
                body(&checks, &[&asked(&[b"a"]), more].concat(), 10),
                None,
                "{more:x?}"
            );
        }
        assert_eq!(body(&checks, &asked(&[&b"a"[..]; 1001]), 10), None);
        assert!(body(&checks, &asked(&[&b"a"[..]; 1000]), 10).is_some());
        assert_eq!(body(&checks, &[0x10, 0], 10), Some(Vec::new()));
    }

    #[test]
    fn what_may_have_changed_is_forgotten() {
        let mut checks = Checks::default();
        checks.learn(0, 1, b"a", known(1, b"yes"));
        checks.learn(0, 1, b"b", known(2, b"no"));
        let version = checks.version();
        checks.forget(1, &[1]);
        assert_eq!(body(&checks, &asked(&[b"a"]), 10), None);
        assert!(body(&checks, &asked(&[b"b"]), 10).is_some());
        checks.learn(version, 1, b"a", known(1, b"yes"));
        assert_eq!(
            body(&checks, &asked(&[b"a"]), 10),
            None,
            "it was looked up before the change"
        );
        checks.set_aside(1, 2, true);
        assert_eq!(body(&checks, &asked(&[b"b"]), 10), None);
        checks.set_aside(1, 2, false);
        assert!(body(&checks, &asked(&[b"b"]), 10).is_some());
        checks.forget_all();
        assert_eq!(body(&checks, &asked(&[b"b"]), 10), None);
    }

    #[test]
    fn there_are_never_too_many() {
        let mut checks = Checks::default();
        for number in 0..=u32::try_from(MOST).unwrap_or(0) {
            checks.learn(0, 1, &number.to_le_bytes(), known(1, b"yes"));
        }
        assert_eq!(checks.known.len(), 1);
    }
}
