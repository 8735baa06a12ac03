//! Ids of availability zones.

/// The id of an availability zone, as EC2 makes it of the zone's name: `use1-az2` of `us-east-1b`, `apse5-az1` of
/// `ap-southeast-5a`. A name of another form is its own id.
/// <https://docs.aws.amazon.com/global-infrastructure/latest/regions/az-ids.html>
pub fn id(zone: &str) -> String {
    let whole = || zone.to_owned();
    let Some((region, letter @ 'a'..='z')) = zone
        .char_indices()
        .next_back()
        .map(|(at, last)| (&zone[..at], last))
    else {
        return whole();
    };
    if !region.ends_with(|c: char| c.is_ascii_digit()) {
        return whole();
    }
    let short: String = region.split('-').map(abbreviated).collect();
    format!("{short}-az{}", u32::from(letter) - u32::from('a') + 1)
}

fn abbreviated(word: &str) -> &str {
    match word {
        "gov" => "g",
        "central" => "c",
        "north" => "n",
        "northeast" => "ne",
        "east" => "e",
        "southeast" => "se",
        "south" => "s",
        "southwest" => "sw",
        "west" => "w",
        "northwest" => "nw",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_as_ec2s() {
        for (zone, expected) in [
            ("us-east-1b", "use1-az2"),
            ("eu-central-1a", "euc1-az1"),
            ("sa-east-1c", "sae1-az3"),
            ("ap-southeast-5a", "apse5-az1"),
            ("cn-northwest-1a", "cnnw1-az1"),
            ("us-gov-east-1a", "usge1-az1"),
            ("local-1a", "local1-az1"),
            ("rack-7", "rack-7"),
            ("cellar", "cellar"),
            ("ä", "ä"),
            ("", ""),
        ] {
            assert_eq!(id(zone), expected, "{zone}");
        }
    }
}
