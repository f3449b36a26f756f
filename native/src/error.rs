//! The one error type of the core.

use thiserror::Error;

/// What went wrong, as a stable word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not protobuf.
    MalformedRequest,
    /// Too many events.
    LimitExceeded,
    /// Too many bytes wait for durability.
    BackPressure,
    /// A meter spec that makes no sense.
    InvalidDefinition,
    /// No such tenant was opened.
    UnknownTenant,
    /// No such meter was put.
    UnknownMeter,
    /// No such counter was put.
    UnknownCounter,
    /// Blocks older than memory covers.
    StaleSnapshot,
    /// A block, payload or chain that does not verify.
    Corrupt,
    /// A file of identities that does not verify or cannot be read: it is
    /// gone, and a new engine makes up for it from segments.
    DamagedRun,
    /// A file of identities cannot be written.
    Disk,
    /// Replay out of order.
    PositionGap,
    /// A sum beyond 26 integer digits, or a minute outside a counter's spans.
    OutOfRange,
    /// A defect.
    Panic,
}

impl Reason {
    /// The word as Python sees it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::MalformedRequest => "MALFORMED_REQUEST",
            Self::LimitExceeded => "LIMIT_EXCEEDED",
            Self::BackPressure => "BACK_PRESSURE",
            Self::InvalidDefinition => "INVALID_DEFINITION",
            Self::UnknownTenant => "UNKNOWN_TENANT",
            Self::UnknownMeter => "UNKNOWN_METER",
            Self::UnknownCounter => "UNKNOWN_COUNTER",
            Self::StaleSnapshot => "STALE_SNAPSHOT",
            Self::Corrupt => "CORRUPT",
            Self::DamagedRun => "DAMAGED_RUN",
            Self::Disk => "DISK",
            Self::PositionGap => "POSITION_GAP",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Panic => "PANIC",
        }
    }
}

/// A reason and a message for people.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}: {message}", reason.word())]
pub struct EngineError {
    /// The stable word.
    pub reason: Reason,
    /// What happened, and where.
    pub message: String,
}

impl EngineError {
    /// Makes an error.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// A meter spec that makes no sense.
    pub fn invalid_definition(message: impl Into<String>) -> Self {
        Self::new(Reason::InvalidDefinition, message)
    }
}
