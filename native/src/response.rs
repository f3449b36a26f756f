//! What became of each event, and the response that says so.

use std::borrow::Cow;

use crate::hash::Content;
use crate::wire::{put_bytes, put_number, put_text};

/// Why one event was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventReason {
    /// Its bytes are not a `UsageEvent`.
    Malformed,
    /// id, source, type or subject is missing.
    FieldMissing,
    /// A field, the event or the number of properties is over a limit.
    TooLarge,
    /// A text is not UTF-8.
    InvalidUtf8,
    /// The time is no time.
    InvalidTime,
    /// The time is before the horizon.
    TooOld,
    /// The time lies ahead.
    InFuture,
    /// A meter's value is no quantity.
    InvalidValue,
    /// `received_time` is the server's to set.
    ReservedField,
}

impl EventReason {
    /// An `ErrorReason` of the API without its prefix.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Malformed => "EVENT_MALFORMED",
            Self::FieldMissing => "EVENT_FIELD_MISSING",
            Self::TooLarge => "EVENT_TOO_LARGE",
            Self::InvalidUtf8 => "EVENT_INVALID_UTF8",
            Self::InvalidTime => "EVENT_INVALID_TIME",
            Self::TooOld => "EVENT_TOO_OLD",
            Self::InFuture => "EVENT_IN_FUTURE",
            Self::InvalidValue => "EVENT_INVALID_VALUE",
            Self::ReservedField => "EVENT_RESERVED_FIELD",
        }
    }
}

/// One event refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The stable word.
    pub reason: EventReason,
    /// The field at fault; empty for the event as a whole.
    pub field: Cow<'static, str>,
    /// What is wrong and what to do about it.
    pub message: Cow<'static, str>,
}

impl Rejection {
    /// Makes a rejection.
    pub fn new(
        reason: EventReason,
        field: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            reason,
            field: field.into(),
            message: message.into(),
        }
    }
}

/// What became of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// In the open group.
    #[default]
    Accepted,
    /// Known, same content.
    Duplicate,
    /// Known, other content: this.
    Conflict(Content),
    /// Refused.
    Rejected(Box<Rejection>),
}

/// What became of one request; everything of the answer but the position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// The group to wait for; 0 for none.
    pub group: u64,
    /// The client's number of the message; 0 for none.
    pub sequence: i64,
    /// Events in the open group.
    pub accepted: u32,
    /// Events known before.
    pub duplicates: u32,
    /// Events known before with other content.
    pub conflicts: u32,
    /// Events refused.
    pub rejected: u32,
    /// How many were refused for which reason.
    pub rejections: Vec<(EventReason, u32)>,
    results: Vec<u8>,
    result_count: usize,
}

/// Results with the event's id and a message for people; later ones of a
/// request have neither, so that an answer to 50,000 bad events stays within
/// what a gRPC client takes.
const FULL_RESULTS: usize = 1_000;

impl Receipt {
    /// A receipt for nothing yet.
    #[must_use]
    pub fn new(sequence: i64) -> Self {
        Self {
            sequence,
            ..Self::default()
        }
    }

    /// Counts one event's verdict and keeps its result, unless accepted.
    /// `id` is shown if it is a text of sane length.
    pub fn add(&mut self, index: usize, verdict: &Verdict, id: &[u8]) {
        let (outcome, stored) = match verdict {
            Verdict::Accepted => {
                self.accepted += 1;
                return;
            }
            Verdict::Duplicate => {
                self.duplicates += 1;
                (2, None)
            }
            Verdict::Conflict(stored) => {
                self.conflicts += 1;
                (3, Some(stored.hex()))
            }
            Verdict::Rejected(rejection) => {
                self.rejected += 1;
                self.count(rejection.reason);
                (4, None)
            }
        };
        let mut result = Vec::with_capacity(64);
        put_number(&mut result, 1, i64::try_from(index).unwrap_or(i64::MAX));
        put_number(&mut result, 2, outcome);
        let full = self.result_count < FULL_RESULTS;
        self.result_count += 1;
        if let Verdict::Rejected(rejection) = verdict {
            put_text(&mut result, 3, rejection.reason.word().as_bytes());
            put_text(&mut result, 4, field_shown(&rejection.field, full).as_bytes());
            if full {
                put_text(&mut result, 5, rejection.message.as_bytes());
            }
        }
        put_text(&mut result, 6, stored.unwrap_or_default().as_bytes());
        if full && id.len() <= crate::event::MAX_TEXT && std::str::from_utf8(id).is_ok() {
            put_text(&mut result, 7, id);
        }
        put_bytes(&mut self.results, 6, &result);
    }

    fn count(&mut self, reason: EventReason) {
        match self.rejections.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.rejections.push((reason, 1)),
        }
    }

    /// A `RecordUsageResponse`; with a sequence, a `StreamUsageResponse`.
    #[must_use]
    pub fn encode(&self, position: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.results.len() + 48);
        put_number(&mut out, 1, position.cast_signed());
        put_number(&mut out, 2, self.accepted.into());
        put_number(&mut out, 3, self.duplicates.into());
        put_number(&mut out, 4, self.conflicts.into());
        put_number(&mut out, 5, self.rejected.into());
        out.extend_from_slice(&self.results);
        put_number(&mut out, 7, self.sequence);
        out
    }
}

/// A property's name may be long: when there are many results only short ones are shown.
fn field_shown(field: &str, full: bool) -> &str {
    if full || field.len() <= SHORT_FIELD {
        field
    } else {
        "properties"
    }
}

const SHORT_FIELD: usize = 32;
