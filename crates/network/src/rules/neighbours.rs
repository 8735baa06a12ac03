//! Other software whose rules drop what Hearth forwards, and what to do about it.

use serde_json::Value;

/// A base chain on the forward hook that drops what it does not know.
struct Chain<'l> {
    family: &'l str,
    table: &'l str,
    name: &'l str,
}

/// One sentence for each rule set beside Hearth's that keeps guests from the world, from all chains of the root
/// namespace as `nft` lists them.
pub(super) fn obstacles(listed: &[Value], has_legacy_filter: bool) -> Vec<String> {
    let chains = || listed.iter().filter_map(|object| object.get("chain"));
    let named = |table: &str, name: &str| {
        chains().any(|chain| {
            chain.get("table").is_some_and(|t| t == table) && chain.get("name").is_some_and(|n| n == name)
        })
    };
    let forwarding = chains().filter_map(|chain| {
        let text = |property: &str| chain.get(property).and_then(Value::as_str);
        let (family, table, name) = (text("family")?, text("table")?, text("name")?);
        // firewalld's chain accepts by policy and ends in a rule that rejects.
        let drops = text("policy") == Some("drop") || table == "firewalld";
        let concerned = matches!(family, "ip" | "inet") && text("hook") == Some("forward");
        (drops && concerned && !table.starts_with("hearth-")).then_some(Chain { family, table, name })
    });
    let mut sentences: Vec<String> = forwarding
        .map(|Chain { family, table, name }| {
            let (who, remedy) = if named(table, "DOCKER-USER") {
                (
                    "Docker",
                    "iptables -I DOCKER-USER -i hv+ -j ACCEPT; iptables -I DOCKER-USER -o hv+ -j ACCEPT".to_owned(),
                )
            } else if named(table, "ufw-before-forward") {
                ("ufw", "ufw route allow in on hv+; ufw route allow out on hv+".to_owned())
            } else if table == "firewalld" {
                (
                    "firewalld",
                    "firewall-cmd --permanent --zone=trusted --add-interface=hv+; firewall-cmd --reload".to_owned(),
                )
            } else {
                (
                    "another rule set",
                    format!(
                        "nft insert rule {family} {table} {name} iifname '\"hv*\"' accept; \
                         nft insert rule {family} {table} {name} oifname '\"hv*\"' accept"
                    ),
                )
            };
            format!(
                "{who} drops forwarded packets (table {family} {table}, chain {name}): unless it admits the interfaces \
                 hv*, guests reach nothing beyond this host and nobody reaches them. To admit them: {remedy}"
            )
        })
        .collect();
    if has_legacy_filter {
        sentences.push(
            "iptables-legacy has a filter table, which nft does not show: if its FORWARD chain drops (see \
             `iptables-legacy -S FORWARD`), guests reach nothing beyond this host and nobody reaches them. To admit them: \
             iptables-legacy -I FORWARD -i hv+ -j ACCEPT; iptables-legacy -I FORWARD -o hv+ -j ACCEPT"
                .to_owned(),
        );
    }
    sentences
}
