//! Ports that games use to find each other, so that a person sees a name beside the number.
//!
//! Ports are facts of the games' own sources and of what others have written about them; some share one.

use std::ops::RangeInclusive;

const GAMES: &[(&str, RangeInclusive<u16>)] = &[
    ("Age of Empires DE", 31_978..=31_978),
    ("Among Us", 47_777..=47_777),
    ("ARMA 2", 2302..=2470),
    ("Blur", 50_001..=50_001),
    ("Call of Duty", 28_960..=28_963),
    ("Civilization VI", 62_900..=62_999),
    ("Command & Conquer", 8086..=8088),
    ("Dawn of War", 6112..=6112),
    ("DirectPlay games", 47_624..=47_624),
    ("Doom 3", 27_666..=27_669),
    ("Factorio", 34_196..=34_197),
    ("FlatOut 2", 23_757..=23_757),
    ("Freeciv", 4555..=4555),
    ("GoldSrc", 27_015..=27_024),
    ("Halo CE", 2302..=2302),
    ("ioquake3", 27_960..=27_963),
    ("Jedi Academy", 29_070..=29_073),
    ("Mindustry", 20_151..=20_151),
    ("Minecraft Bedrock", 19_132..=19_133),
    ("Minecraft Java", 4445..=4445),
    ("Nintendo Switch", 11_452..=11_452),
    ("OpenRA", 35_891..=35_891),
    ("Quake II", 27_910..=27_910),
    ("RetroArch", 55_435..=55_435),
    ("Serious Sam", 25_600..=25_601),
    ("Source", 27_005..=27_020),
    ("StarCraft", 6111..=6112),
    ("Steam Remote Play", 27_036..=27_036),
    ("SuperTuxKart", 2757..=2757),
    ("Supreme Commander", 15_000..=15_000),
    ("Terraria", 8888..=8888),
    ("TrackMania", 2350..=2360),
    ("Unreal", 14_001..=14_001),
    ("Unreal Tournament", 8777..=8786),
    ("Unreal Tournament 2004", 10_777..=10_777),
    ("Warcraft III", 6112..=6112),
    ("Warsow", 44_400..=44_400),
    ("Xonotic", 26_000..=26_000),
];

/// Games that are known to search or announce themselves on a port.
pub fn games_at(port: u16) -> impl Iterator<Item = &'static str> {
    GAMES.iter().filter(move |(_, ports)| ports.contains(&port)).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn games_of_a_port() {
        assert_eq!(games_at(6112).collect::<Vec<_>>(), ["Dawn of War", "StarCraft", "Warcraft III"]);
        assert_eq!(games_at(1).count(), 0);
        assert!(GAMES.windows(2).all(|pair| pair[0].0.to_lowercase() <= pair[1].0.to_lowercase()));
    }
}
