//! The first phase of admission: a request's events, judged without any lock.

use crate::admit::MAX_EVENTS;
use crate::engine::Settings;
use crate::error::{EngineError, Reason};
use crate::event::{Event, property_field};
use crate::find::Observed;
use crate::hash::{Content, Hasher, Identity, same};
use crate::observe::{Member, MeterSet, Observation, push_key};
use crate::response::{EventReason, Rejection, Verdict};
use crate::wire::{Reader, Value, WireError};

/// More events than this leave no memory behind.
const MAX_SCRATCH: usize = 10_000;

/// An event of the request and what is known about it.
#[derive(Default)]
pub struct Judged<'a> {
    pub bytes: &'a [u8],
    pub id: &'a [u8],
    pub identity: Identity,
    pub content: Content,
    pub time_us: i64,
    /// Came without a time and is stamped with this one.
    pub stamped: bool,
    /// Where its observations end; they begin where those before end.
    pub observed_end: usize,
    pub verdict: Verdict,
}

/// A request, judged.
#[derive(Default)]
pub struct Batch<'a> {
    pub judged: Vec<Judged<'a>>,
    pub observed: Vec<Observed>,
    pub keys: Vec<u8>,
    pub sequence: i64,
}

/// What judging one event needs besides the event.
pub struct Judge<'s> {
    pub now_us: i64,
    pub meters: &'s MeterSet,
    pub settings: &'s Settings,
    pub hasher: Hasher,
    /// The last type met and its meters: neighbours mostly share it.
    pub of_type: (Vec<u8>, &'s [Member]),
}

impl<'s> Judge<'s> {
    fn members(&mut self, event_type: &[u8]) -> &'s [Member] {
        if !same(&self.of_type.0, event_type) {
            self.of_type = (event_type.to_vec(), self.meters.of_type(event_type));
        }
        self.of_type.1
    }
}

/// The number that a client gave its stream message; 0 for none.
///
/// # Errors
/// `MALFORMED_REQUEST` if the framing is broken.
#[cfg(feature = "python")]
pub fn sequence(body: &[u8]) -> Result<i64, EngineError> {
    let mut reader = Reader::new(body);
    let mut found = 0;
    while let Some((number, value)) = reader.field().map_err(malformed)? {
        if let (2, Value::Varint(sequence)) = (number, value) {
            found = sequence.cast_signed();
        }
    }
    Ok(found)
}

impl<'a> Batch<'a> {
    pub fn clear(&mut self) {
        self.judged.clear();
        self.observed.clear();
        self.keys.clear();
        self.sequence = 0;
    }

    /// The same memory for another request's lifetime.
    pub fn recycled<'b>(self) -> Batch<'b> {
        if self.judged.capacity() > MAX_SCRATCH {
            return Batch::default();
        }
        // Empty: collecting in place only changes the type.
        let judged = self.judged.into_iter().map(retype).collect();
        Batch {
            judged,
            observed: self.observed,
            keys: self.keys,
            sequence: 0,
        }
    }

    pub fn judge(&mut self, body: &'a [u8], mut judge: Judge<'_>) -> Result<(), EngineError> {
        let mut event = Event::default();
        let mut reader = Reader::new(body);
        while let Some((number, value)) = reader.field().map_err(malformed)? {
            match (number, value) {
                (1, Value::Bytes(_)) if self.judged.len() == MAX_EVENTS => {
                    let message = format!("more than {MAX_EVENTS} events: send them in several requests");
                    return Err(EngineError::new(Reason::LimitExceeded, message));
                }
                (1, Value::Bytes(bytes)) => self.add(bytes, &mut event, &mut judge),
                (2, Value::Varint(sequence)) => self.sequence = sequence.cast_signed(),
                _ => {}
            }
        }
        Ok(())
    }

    fn add(&mut self, bytes: &'a [u8], event: &mut Event<'a>, judge: &mut Judge<'_>) {
        let mut judged = Judged {
            bytes,
            time_us: judge.now_us,
            ..Judged::default()
        };
        let begin = self.observed.len();
        if let Err(rejection) = self.judge_event(&mut judged, event, judge) {
            self.observed.truncate(begin);
            judged.verdict = Verdict::Rejected(Box::new(rejection));
        }
        judged.id = event.id;
        judged.observed_end = self.observed.len();
        self.judged.push(judged);
    }

    fn judge_event(
        &mut self,
        judged: &mut Judged<'a>,
        event: &mut Event<'a>,
        judge: &mut Judge<'_>,
    ) -> Result<(), Rejection> {
        event.read(judged.bytes).map_err(|error| {
            let message = format!(
                "not a UsageEvent: {} at byte {} of the event",
                error.what, error.offset
            );
            Rejection::new(EventReason::Malformed, "", message)
        })?;
        event.check()?;
        match event.time_us() {
            Some(time_us) => judged.time_us = judge.settings.check_horizon(time_us, judge.now_us)?,
            None => judged.stamped = true,
        }
        self.observe(event, judge)?;
        judged.identity = judge.hasher.identity(event);
        judged.content = judge.hasher.content(event);
        Ok(())
    }

    fn observe(&mut self, event: &Event<'a>, judge: &mut Judge<'_>) -> Result<(), Rejection> {
        let (mut shape, mut key_start) = (usize::MAX, self.keys.len());
        for member in judge.members(event.kind) {
            let value = match member.observe(event, &judge.hasher) {
                Observation::None => continue,
                Observation::Value(value) => value,
                Observation::Invalid => return Err(invalid_value(member)),
            };
            // Members of one shape stand together and share the key.
            if member.key_shape != shape {
                shape = member.key_shape;
                key_start = self.keys.len();
                push_key(&mut self.keys, &member.spec, event);
            }
            let key = (key_start, self.keys.len());
            self.observed.push(Observed::new(member.spec.id, key, value));
        }
        Ok(())
    }
}

/// Never called: there is nothing in what it is mapped over.
fn retype<'b>(_: Judged<'_>) -> Judged<'b> {
    Judged::default()
}

fn invalid_value(member: &Member) -> Rejection {
    let spec = &member.spec;
    let message = format!(
        "meter {:?} reads this as its value and it is no decimal number: \
         send digits with at most 26 before and 12 after the point, or leave it out",
        spec.key
    );
    Rejection::new(
        EventReason::InvalidValue,
        property_field(&spec.value_property),
        message,
    )
}

fn malformed(error: WireError) -> EngineError {
    let message = format!("not a protobuf message: {} at byte {}", error.what, error.offset);
    EngineError::new(Reason::MalformedRequest, message)
}
