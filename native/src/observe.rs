//! Which meters count an event, and with what value.

use std::collections::HashMap;
use std::sync::Arc;

use crate::decimal;
use crate::error::EngineError;
use crate::event::Event;
use crate::hash::Hasher;
use crate::meter::{Aggregation, Condition, Filter, MeterSpec, push_key_part};

/// What a meter makes of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Not its type, not its filters, or no value: the meter does not apply.
    None,
    /// `Point::value`.
    Value(i128),
    /// The value is there and no quantity.
    Invalid,
}

/// Looks at an event with a meter's eyes.
#[must_use]
pub fn observe(spec: &MeterSpec, event: &Event<'_>, hasher: &Hasher) -> Observation {
    if event.kind != spec.event_type.as_bytes() {
        return Observation::None;
    }
    observe_typed(spec, event, hasher)
}

#[inline]
fn observe_typed(spec: &MeterSpec, event: &Event<'_>, hasher: &Hasher) -> Observation {
    if !spec.filters.iter().all(|filter| holds(filter, event)) {
        return Observation::None;
    }
    if spec.aggregation == Aggregation::Count {
        return Observation::Value(0);
    }
    let Some(value) = event.property_value(spec.value_property.as_bytes()) else {
        return Observation::None;
    };
    if spec.aggregation == Aggregation::UniqueCount {
        return if value.is_empty() {
            Observation::None
        } else {
            Observation::Value(hasher.value(value))
        };
    }
    decimal::parse(value).map_or(Observation::Invalid, Observation::Value)
}

fn holds(filter: &Filter, event: &Event<'_>) -> bool {
    let value = event.property_value(filter.property.as_bytes());
    match &filter.condition {
        Condition::Equals(wanted) => value == Some(wanted.as_bytes()),
        Condition::NotEquals(other) => value != Some(other.as_bytes()),
        Condition::In(wanted) => value.is_some_and(|value| wanted.iter().any(|one| one.as_bytes() == value)),
        Condition::Exists => value.is_some(),
    }
}

/// Appends the key of the event's group under a meter.
#[inline]
pub fn push_key(key: &mut Vec<u8>, spec: &MeterSpec, event: &Event<'_>) {
    push_key_part(key, event.subject);
    for dimension in &spec.dimensions {
        push_key_part(
            key,
            event.property_value(dimension.as_bytes()).unwrap_or_default(),
        );
    }
}

/// A meter of a set.
#[derive(Clone, Debug)]
pub struct Member {
    /// The meter.
    pub spec: Arc<MeterSpec>,
    /// Meters of the same dimensions have the same number: one key serves them.
    pub key_shape: usize,
}

/// A tenant's meters at one moment, by event type. Never changed, only replaced.
#[derive(Clone, Debug, Default)]
pub struct MeterSet {
    by_type: HashMap<Vec<u8>, Vec<Member>, ahash::RandomState>,
}

impl MeterSet {
    /// A set with these meters.
    #[must_use]
    pub fn new(specs: impl IntoIterator<Item = Arc<MeterSpec>>) -> Self {
        let mut set = Self::default();
        let mut shapes: Vec<Vec<String>> = Vec::new();
        for spec in specs {
            let known = shapes.iter().position(|shape| *shape == spec.dimensions);
            let key_shape = known.unwrap_or_else(|| {
                shapes.push(spec.dimensions.clone());
                shapes.len() - 1
            });
            let members = set
                .by_type
                .entry(spec.event_type.clone().into_bytes())
                .or_default();
            members.push(Member { spec, key_shape });
            members.sort_by_key(|member| (member.key_shape, member.spec.id));
        }
        set
    }

    /// This set with a meter more, or another in the place of that number.
    #[must_use]
    pub fn with(&self, spec: Arc<MeterSpec>) -> Self {
        let others = self.specs().filter(|other| other.id != spec.id).cloned();
        Self::new(others.collect::<Vec<_>>().into_iter().chain([spec]))
    }

    /// This set without a meter.
    #[must_use]
    pub fn without(&self, meter: u32) -> Self {
        Self::new(self.specs().filter(|spec| spec.id != meter).cloned())
    }

    /// The meters that may count events of a type.
    #[inline]
    #[must_use]
    pub fn of_type(&self, event_type: &[u8]) -> &[Member] {
        self.by_type.get(event_type).map_or(&[], Vec::as_slice)
    }

    /// True if a meter of that number is in it.
    #[must_use]
    pub fn contains(&self, meter: u32) -> bool {
        self.specs().any(|spec| spec.id == meter)
    }

    fn specs(&self) -> impl Iterator<Item = &Arc<MeterSpec>> {
        self.by_type.values().flatten().map(|member| &member.spec)
    }
}

impl Member {
    /// What this meter makes of an event of its type.
    #[inline]
    #[must_use]
    pub fn observe(&self, event: &Event<'_>, hasher: &Hasher) -> Observation {
        observe_typed(&self.spec, event, hasher)
    }
}

/// A filter as Python gives it: property, operator, values.
pub type RawFilter = (String, String, Vec<String>);

/// Checks a spec and puts the filters into it.
///
/// # Errors
/// `INVALID_DEFINITION`, saying what to change.
pub fn compile(mut spec: MeterSpec, filters: Vec<RawFilter>) -> Result<MeterSpec, EngineError> {
    let invalid = |message: String| Err(EngineError::invalid_definition(message));
    if spec.key.is_empty() || spec.event_type.is_empty() {
        return invalid("a meter needs a key and an event type".into());
    }
    if (spec.aggregation == Aggregation::Count) != spec.value_property.is_empty() {
        return invalid("COUNT takes no value property; every other aggregation needs one".into());
    }
    for (i, dimension) in spec.dimensions.iter().enumerate() {
        if dimension.is_empty() || matches!(dimension.as_str(), "subject" | "customer") {
            return invalid(format!("a dimension cannot be called {dimension:?}"));
        }
        if spec.dimensions[..i].contains(dimension) {
            return invalid(format!("the dimension {dimension:?} is listed twice"));
        }
    }
    spec.filters = filters
        .into_iter()
        .map(compile_filter)
        .collect::<Result<_, _>>()?;
    Ok(spec)
}

fn compile_filter((property, operator, mut values): RawFilter) -> Result<Filter, EngineError> {
    let condition = match (operator.as_str(), values.len()) {
        ("EQUALS", 1) => Condition::Equals(values.remove(0)),
        ("NOT_EQUALS", 1) => Condition::NotEquals(values.remove(0)),
        ("IN", 1..) => Condition::In(values),
        ("EXISTS", 0) => Condition::Exists,
        (_, count) => {
            let message = format!(
                "filter on {property:?}: {operator} with {count} values; \
                 EQUALS and NOT_EQUALS take one, IN one or more, EXISTS none"
            );
            return Err(EngineError::invalid_definition(message));
        }
    };
    if property.is_empty() {
        return Err(EngineError::invalid_definition("a filter needs a property"));
    }
    Ok(Filter { property, condition })
}
