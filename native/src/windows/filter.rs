//! Conditions on dimensions, compiled for one meter.

use super::group::parts;
use crate::error::EngineError;
use crate::meter::MeterSpec;

/// Names that group by something else than a dimension.
pub const SUBJECT: &str = "subject";
/// The owner of the subject at that minute.
pub const CUSTOMER: &str = "customer";

/// Dimension filters; all must hold.
#[derive(Debug, Default)]
pub struct Filters(Box<[Allowed]>);

#[derive(Debug)]
struct Allowed {
    dimension: usize,
    values: Box<[Box<str>]>,
}

impl Filters {
    /// Resolves the dimensions' names.
    ///
    /// # Errors
    /// `INVALID_DEFINITION` for "subject", "customer" and what is no dimension of the meter.
    pub fn compile(spec: &MeterSpec, filters: &[(String, Vec<String>)]) -> Result<Self, EngineError> {
        let compile = |(name, values): &(String, Vec<String>)| {
            if name == SUBJECT || name == CUSTOMER {
                return Err(EngineError::invalid_definition(format!(
                    "{name:?} cannot be filtered as a dimension"
                )));
            }
            let dimension = dimension(spec, name)?;
            let mut values: Vec<Box<str>> = values.iter().map(|value| value.as_str().into()).collect();
            values.sort_unstable();
            Ok(Allowed {
                dimension,
                values: values.into(),
            })
        };
        filters.iter().map(compile).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a group's key satisfies them.
    pub fn hold(&self, key: &[u8]) -> bool {
        self.0.iter().all(|allowed| {
            let value = parts(key).nth(allowed.dimension + 1).unwrap_or_default();
            allowed
                .values
                .binary_search_by(|one| one.as_bytes().cmp(value))
                .is_ok()
        })
    }
}

/// Index of a dimension of the meter.
///
/// # Errors
/// `INVALID_DEFINITION` naming it.
pub fn dimension(spec: &MeterSpec, name: &str) -> Result<usize, EngineError> {
    spec.dimensions
        .iter()
        .position(|dimension| dimension == name)
        .ok_or_else(|| {
            EngineError::invalid_definition(format!(
                "{name:?} is not a dimension of the meter {:?}",
                spec.key
            ))
        })
}

/// Refuses boundaries that do not increase.
///
/// # Errors
/// `INVALID_DEFINITION`.
pub fn check_boundaries(boundaries: &[i32]) -> Result<(), EngineError> {
    if boundaries.is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    Err(EngineError::invalid_definition("the boundaries do not increase"))
}

/// Index of the window around a minute.
#[inline]
pub fn window_of(boundaries: &[i32], minute: i32) -> Option<usize> {
    let after = boundaries.partition_point(|boundary| *boundary <= minute);
    (0 < after && after < boundaries.len()).then(|| after - 1)
}
