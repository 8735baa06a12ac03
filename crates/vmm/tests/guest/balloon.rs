//! The balloon's tests, and statistics that the host asks for when the guest's console tells it to.

use std::time::Duration;

use hearth_vmm::control::{Event, Reply, Request};
use hearth_vmm::spec::BalloonOptions;
use hearth_vmm::virtio::balloon::Statistic;

use super::{finish, run, start};

const ROUNDS: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

fn options() -> Option<BalloonOptions> {
    Some(BalloonOptions {
        // The guest expects just that.
        target_mib: 1,
        deflate_on_oom: true,
        free_page_reporting: true,
    })
}

#[test]
fn balloon() {
    run("balloon", 60, None, |spec, _| spec.balloon = options());
}

#[test]
fn statistics() {
    let cmdline = format!("only=statistics:: statistics={ROUNDS}");
    let Some(mut guest) = start("statistics", &cmdline, None, |spec, _| spec.balloon = options()) else {
        return;
    };
    assert!(matches!(guest.next_event(PATIENCE), Some(Event::Entered { .. })));
    for round in 0..ROUNDS {
        guest.wait_for_console(&format!("statistics: ask {round}\n"), PATIENCE);
        assert_eq!(guest.request(&Request::RefreshBalloonStatistics), Reply::Ok);
        let Some(Event::BalloonStatistics(status)) = guest.next_event(PATIENCE) else {
            panic!("no statistics come");
        };
        let expected = [
            (Statistic::FreeBytes, (round + 1) * MIB),
            (Statistic::TotalBytes, 64 * MIB),
        ];
        assert_eq!(status.statistics, expected.into());
    }
    finish(guest, 1);
}
