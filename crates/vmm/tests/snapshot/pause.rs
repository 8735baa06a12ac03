use crate::guest::{plan, start};

#[test]
fn a_paused_guest_prints_nothing_and_counts_on_when_resumed() {
    let Some(plan) = plan("a_paused_guest", 2) else {
        return;
    };
    let (mut machine, console) = start(&plan);
    for _ in 0..20 {
        console.wait_for(3, console.len());
        machine.pause().unwrap();
        let paused = console.len();
        machine.pause().unwrap();
        std::thread::yield_now();
        assert_eq!(console.len(), paused);
        machine.resume();
    }
    console.wait_for(30, console.len());
    machine.stop();
    console.assert_counts_on_from(0);
}

#[test]
fn a_paused_machine_can_be_stopped() {
    let Some(plan) = plan("a_paused_machine_can_be_stopped", 2) else {
        return;
    };
    let (mut machine, console) = start(&plan);
    console.wait_for(1, 0);
    machine.pause().unwrap();
    machine.stop();
    console.assert_counts_on_from(0);
}
