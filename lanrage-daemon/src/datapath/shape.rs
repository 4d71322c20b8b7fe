//! What the maps of the embedded object look like, for telling whether pinned ones can be used as they are.

use super::xdp::LoadError;
use aya::maps::{MapInfo, MapType};
use aya_obj::Object;
use lanrage_common::maps;

/// Kind and sizes of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Its name in the object and in bpffs.
    pub name: String,
    kind: u32,
    key_size: u32,
    value_size: u32,
    /// How many entries it has room for.
    pub max_entries: u32,
    flags: u32,
}

impl Shape {
    /// Shapes of all maps in an object that are kept when the daemon ends, with room for that many flows.
    pub fn all(object: &[u8], max_flows: u32) -> Result<Vec<Self>, LoadError> {
        let object = Object::parse(object).map_err(|error| LoadError::Refused(error.to_string()))?;
        // Names with a dot are the compiler's own: constants that belong to one program.
        let kept = object.maps.iter().filter(|(name, _)| !name.contains('.'));
        let mut shapes: Vec<Self> = kept.map(|(name, map)| Self::new(name, map, max_flows)).collect();
        shapes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(shapes)
    }

    fn new(name: &str, map: &aya_obj::Map, max_flows: u32) -> Self {
        Self {
            name: name.into(),
            kind: map.map_type(),
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: if name == maps::FLOWS { max_flows } else { map.max_entries() },
            flags: map.map_flags(),
        }
    }

    /// Is it a map like this?
    pub fn describes(&self, info: &MapInfo) -> bool {
        self.has_entries_of(info) && info.max_entries() == self.max_entries && info.map_flags() == self.flags
    }

    /// Is it a map of that kind with such entries?
    pub fn has_entries_of(&self, info: &MapInfo) -> bool {
        info.map_type().is_ok_and(|kind| kind as u32 == self.kind)
            && info.key_size() == self.key_size
            && info.value_size() == self.value_size
    }

    /// Whether its entries must move along with the relay; counters and events need not.
    pub fn is_copied(&self) -> bool {
        self.is_array() || self.kind == MapType::Hash as u32
    }

    /// Is it an array?
    pub fn is_array(&self) -> bool {
        self.kind == MapType::Array as u32
    }
}
