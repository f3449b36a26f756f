//! What a meter is, and the observation that it takes from an event.

use crate::error::EngineError;

/// Scaled decimal quantity: 1 is 10^12.
pub type Quantity = i128;

/// How events become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// Number of events.
    Count,
    /// Sum of the values.
    Sum,
    /// Least value.
    Min,
    /// Greatest value.
    Max,
    /// Sum over count.
    Avg,
    /// Number of distinct values.
    UniqueCount,
    /// Value of the event with the greatest time; ties: the later arrival.
    Latest,
}

/// A condition on one property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The property is there and equal.
    Equals(String),
    /// The property is missing or differs.
    NotEquals(String),
    /// The property is there and one of these.
    In(Vec<String>),
    /// The property is there.
    Exists,
}

/// A condition and the property it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Name of the property.
    pub property: String,
    /// What must hold.
    pub condition: Condition,
}

/// One meter revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterSpec {
    /// Number that the database gave the revision.
    pub id: u32,
    /// The operator's name, for messages.
    pub key: String,
    /// Only events of this type.
    pub event_type: String,
    /// How to aggregate.
    pub aggregation: Aggregation,
    /// Property holding the value; empty for COUNT only.
    pub value_property: String,
    /// Properties to group by, in order.
    pub dimensions: Vec<String>,
    /// All must hold.
    pub filters: Vec<Filter>,
}

/// One observation: what one event adds to one meter.
///
/// `group` was interned by `Windows::group` of the event's tenant and knows
/// its meter, subject and dimensions. `value` is a quantity, except for
/// `UNIQUE_COUNT`, where it holds the bits of the keyed 128-bit hash of the
/// value, and COUNT, where it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Quantity or hash.
    pub value: i128,
    /// Event time in microseconds.
    pub time_us: i64,
    /// Interned group.
    pub group: u32,
    /// Place of the event in its segment: with the position, arrival order.
    pub index: u32,
}

/// Microseconds in a minute.
pub const MINUTE_US: i64 = 60_000_000;

/// Minute of an instant, counted from the epoch; floors before it, too.
#[must_use]
pub fn minute_of(time_us: i64) -> i32 {
    i32::try_from(time_us.div_euclid(MINUTE_US)).unwrap_or(if time_us < 0 { i32::MIN } else { i32::MAX })
}

/// Appends one part of a group key: its length (u32, little-endian), then its
/// bytes. A key is the subject, then each dimension's value in the order of
/// the spec; a missing one is empty.
pub fn push_key_part(key: &mut Vec<u8>, part: &[u8]) {
    let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
    key.extend_from_slice(&length.to_le_bytes());
    key.extend_from_slice(part);
}

impl Aggregation {
    /// Reads the name used on the wire.
    ///
    /// # Errors
    /// `INVALID_DEFINITION` for any other word.
    pub fn parse(word: &str) -> Result<Self, EngineError> {
        Ok(match word {
            "COUNT" => Self::Count,
            "SUM" => Self::Sum,
            "MIN" => Self::Min,
            "MAX" => Self::Max,
            "AVG" => Self::Avg,
            "UNIQUE_COUNT" => Self::UniqueCount,
            "LATEST" => Self::Latest,
            _ => {
                return Err(EngineError::invalid_definition(format!(
                    "unknown aggregation {word:?}"
                )));
            }
        })
    }
}
