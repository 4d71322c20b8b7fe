//! What could stand in the way of playing, each with its cure: what the status tells, and what this machine tells.

mod checks;
mod host;

use lanrage_common::api::{Cure, Finding, Status};

/// Looks at everything. `may_ask_router` is the setting `peer.port_mapping`.
pub(crate) async fn look(status: &Status, may_ask_router: bool) -> Vec<Finding> {
    let mut findings = checks::all(status);
    findings.extend(host::all(status).await);
    if !may_ask_router {
        offer_port_mapping(&mut findings);
    }
    findings
}

/// A router that is not asked for a port cannot give one.
fn offer_port_mapping(findings: &mut [Finding]) {
    let Some(nat) = findings.iter_mut().find(|found| found.check == "nat" && found.fix.is_some()) else {
        return;
    };
    nat.fix = Some("let LANrage ask the router for a port: set `peer.port_mapping = true`".into());
    nat.cure = Some(Cure::AllowPortMapping);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_that_may_not_be_asked_is_the_first_thing_to_mend() {
        let mut findings = [
            Finding::good("tunnel", "is up"),
            Finding::warning("nat", "another port for every destination", "switch on UPnP in the router"),
        ];
        offer_port_mapping(&mut findings);
        assert_eq!(findings.each_ref().map(|found| found.cure), [None, Some(Cure::AllowPortMapping)]);
        let mut findings = [Finding::good("nat", "no NAT")];
        offer_port_mapping(&mut findings);
        assert_eq!(findings[0].cure, None);
    }
}
