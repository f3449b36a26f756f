//! What events add to meters, and the groups of many such observations at once.

use crate::windows::{Lookup, NO_GROUP, Place, Windows};

/// What one event adds to one meter; the group is still a key.
pub struct Observed {
    meter: u32,
    /// Where the key is among the keys.
    key: (usize, usize),
    /// Once it was asked for, the number of its look-up; once that is answered, the group if it
    /// was met before. Else `NO_GROUP`.
    group: u32,
    /// `Point::value`.
    pub value: i128,
}

impl Observed {
    pub fn new(meter: u32, key: (usize, usize), value: i128) -> Self {
        Self {
            meter,
            key,
            group: NO_GROUP,
            value,
        }
    }
}

/// Finds groups: first `ask` for some, then `answer` for all that were asked for, then take each.
pub struct Finder<'k> {
    keys: &'k [u8],
    /// Of each meter that was met.
    places: Vec<(u32, Option<Place>)>,
    lookups: Vec<Lookup>,
}

impl<'k> Finder<'k> {
    pub fn new(keys: &'k [u8]) -> Self {
        Self {
            keys,
            places: Vec::new(),
            lookups: Vec::new(),
        }
    }

    /// Asks for the group of an observation.
    #[inline]
    pub fn ask(&mut self, one: &mut Observed, windows: &Windows) {
        let Some(place) = self.place(one.meter, windows) else {
            return;
        };
        // Neighbours often are of one group, and meters of one shape always of one family.
        let same = |last: &Lookup| {
            last.shape == place.shape && (last.key == one.key || self.text(last.key) == self.text(one.key))
        };
        if !self.lookups.last().is_some_and(same) {
            self.lookups.push(Lookup::new(place.shape, one.key));
        }
        one.group = u32::try_from(self.lookups.len() - 1).unwrap_or(NO_GROUP);
    }

    /// Gives observations that were asked for their groups, if these were met before.
    pub fn answer(&mut self, observed: &mut [Observed], windows: &Windows) {
        windows.find_families(self.keys, &mut self.lookups);
        for one in observed {
            if let Some(&Lookup { first, .. }) = self.lookups.get(one.group as usize) {
                let place = self.place(one.meter, windows);
                one.group = place.map_or(NO_GROUP, |place| place.group(first));
            }
        }
        self.lookups.clear();
    }

    /// The group of an observation that was answered, a new one if need be.
    #[inline]
    pub fn group(&mut self, one: &Observed, windows: &mut Windows) -> u32 {
        if one.group != NO_GROUP {
            return one.group;
        }
        let key = &self.keys[one.key.0..one.key.1];
        self.place(one.meter, windows)
            .map_or(NO_GROUP, |place| place.group(windows.family(place.shape, key)))
    }

    fn text(&self, key: (usize, usize)) -> &[u8] {
        &self.keys[key.0..key.1]
    }

    #[inline]
    fn place(&mut self, meter: u32, windows: &Windows) -> Option<Place> {
        if let Some((_, place)) = self.places.iter().find(|(known, _)| *known == meter) {
            return *place;
        }
        let place = windows.place(meter);
        self.places.push((meter, place));
        place
    }
}
