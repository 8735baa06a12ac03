use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The table, row by row: one request of a machine at rest.
#[test]
fn each_request_in_each_state() {
    use VmState::{Ending as Over, Paused, Running, Starting};
    let end = || Some(Step::End(Outcome::Stopped));
    let restart = Some(Step::Restart);
    for (ask, state, step, answered) in [
        (Ask::Pause, Starting, None, None),
        (Ask::Pause, Running, Some(Step::Pause), None),
        (Ask::Pause, Paused, None, Some(Ok(()))),
        (Ask::Pause, Over, None, Some(Err(Refusal::Ending))),
        (Ask::Resume, Starting, None, Some(Ok(()))),
        (Ask::Resume, Running, None, Some(Ok(()))),
        (Ask::Resume, Paused, Some(Step::Resume), None),
        (Ask::Resume, Over, None, Some(Err(Refusal::Ending))),
        (Ask::PowerButton, Starting, None, None),
        (Ask::PowerButton, Running, Some(Step::PressPowerButton), None),
        (Ask::PowerButton, Paused, Some(Step::PressPowerButton), None),
        (Ask::PowerButton, Over, None, Some(Err(Refusal::Ending))),
        (Ask::Reset, Starting, restart.clone(), Some(Ok(()))),
        (Ask::Reset, Running, restart.clone(), Some(Ok(()))),
        (Ask::Reset, Paused, restart.clone(), Some(Ok(()))),
        (Ask::Reset, Over, None, Some(Err(Refusal::Ending))),
        (Ask::Stop, Starting, end(), Some(Ok(()))),
        (Ask::Stop, Running, end(), Some(Ok(()))),
        (Ask::Stop, Paused, end(), Some(Ok(()))),
        (Ask::Stop, Over, None, Some(Ok(()))),
    ] {
        let mut queue = at(state);
        queue.ask(ask, 7);
        assert_eq!(queue.next_step(), step, "{ask:?} while {state:?}");
        let answers = queue.answers();
        let found = answers.into_iter().map(|(_, answer)| answer).next();
        assert_eq!(found, answered, "{ask:?} while {state:?}");
    }
}

fn at(state: VmState) -> RequestQueue<u32> {
    let mut queue = RequestQueue::new();
    if state != VmState::Starting {
        queue.entered();
    }
    match state {
        VmState::Paused => queue.ask(Ask::Pause, 0),
        VmState::Ending => queue.ask(Ask::Stop, 0),
        VmState::Starting | VmState::Running => {}
    }
    if queue.next_step().is_some() {
        queue.finished(Ok(()));
    }
    queue.answers();
    assert_eq!(queue.state(), state);
    queue
}

#[test]
fn what_comes_during_a_step_waits_and_is_merged() {
    let mut queue = at(VmState::Running);
    queue.ask(Ask::Pause, 1);
    assert_eq!(queue.next_step(), Some(Step::Pause));
    queue.ask(Ask::Resume, 2);
    queue.ask(Ask::Resume, 3);
    queue.ask(Ask::Pause, 4);
    assert_eq!(queue.next_step(), None);
    queue.finished(Ok(()));
    assert_eq!(queue.answers(), [(1, Ok(()))]);
    assert_eq!(queue.next_step(), Some(Step::Resume));
    queue.finished(Ok(()));
    assert_eq!(queue.answers(), [(2, Ok(())), (3, Ok(()))]);
    assert_eq!(queue.next_step(), Some(Step::Pause));
}

#[test]
fn a_reset_goes_first_and_what_waits_is_for_the_fresh_boot() {
    let mut queue = at(VmState::Paused);
    queue.ask(Ask::PowerButton, 1);
    queue.ask(Ask::Reset, 2);
    queue.end(Ending::Reset);
    assert_eq!(queue.next_step(), Some(Step::Restart));
    queue.finished(Ok(()));
    assert_eq!(queue.next_step(), None);
    queue.entered();
    assert_eq!(queue.next_step(), Some(Step::PressPowerButton));
    queue.finished(Ok(()));
    assert_eq!(queue.answers(), [(2, Ok(())), (1, Ok(()))]);
    assert_eq!(queue.next_step(), None, "two resets were one");
}

#[test]
fn the_first_end_counts_and_goes_before_a_reset() {
    let mut queue = at(VmState::Running);
    queue.end(Ending::Reset);
    queue.end(Ending::PowerOff);
    queue.ask(Ask::Stop, 1);
    queue.ask(Ask::Pause, 2);
    assert_eq!(queue.next_step(), Some(Step::End(Outcome::GuestPowerOff)));
    assert_eq!(queue.answers(), [(1, Ok(())), (2, Err(Refusal::Ending))]);
}

#[test]
fn a_pause_that_fails_leaves_the_boot_to_its_end() {
    let mut queue = at(VmState::Running);
    queue.ask(Ask::Pause, 1);
    queue.next_step();
    queue.ask(Ask::Resume, 2);
    queue.finished(Err("the machine is ending".into()));
    assert_eq!(queue.state(), VmState::Running);
    queue.end(Ending::Reset);
    assert_eq!(queue.next_step(), Some(Step::Restart));
    let failed = Err(Refusal::Failed("the machine is ending".into()));
    assert_eq!(queue.answers(), [(1, failed)]);
}

#[derive(Debug, Clone)]
enum Happening {
    Ask(Ask),
    Entered,
    End(Ending),
    Next,
    Finished(bool),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let ask = prop_oneof![
        4 => Just(Ask::Pause),
        4 => Just(Ask::Resume),
        3 => Just(Ask::PowerButton),
        2 => Just(Ask::Reset),
        1 => Just(Ask::Stop),
    ];
    let end = prop_oneof![
        4 => Just(Ending::Reset),
        1 => Just(Ending::PowerOff),
        1 => Just(Ending::NothingBootable),
        1 => Just(Ending::Crash("triple trouble".into())),
    ];
    let happening = prop_oneof![
        8 => ask.prop_map(Happening::Ask),
        4 => Just(Happening::Entered),
        1 => end.prop_map(Happening::End),
        8 => Just(Happening::Next),
        8 => prop::bool::weighted(0.95).prop_map(Happening::Finished),
    ];
    prop::collection::vec(happening, 0..80)
}

/// A driver that believes nothing: it keeps the machine's true state, and every request until its answer.
#[derive(Default)]
struct Driver {
    queue: RequestQueue<u32>,
    /// What the machine is, as the steps left it.
    paused: bool,
    entered: bool,
    over: bool,
    under_way: Option<Step>,
    open: BTreeMap<u32, Ask>,
    asked: u32,
    resets: u32,
    restarts: u32,
}

impl Driver {
    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Ask(ask) => {
                self.asked += 1;
                self.resets += u32::from(*ask == Ask::Reset);
                self.open.insert(self.asked, *ask);
                self.queue.ask(*ask, self.asked);
            }
            Happening::Entered => {
                // The threads of a boot exist only while none is being torn down.
                if self.under_way != Some(Step::Restart) && !self.over {
                    self.entered = true;
                    self.queue.entered();
                }
            }
            Happening::End(ending) => {
                self.resets += u32::from(*ending == Ending::Reset);
                self.queue.end(ending.clone());
            }
            Happening::Next => self.next(),
            Happening::Finished(well) => self.finish(*well),
        }
        for (ticket, answer) in self.queue.answers() {
            let ask = self
                .open
                .remove(&ticket)
                .expect("answered once, and only if asked");
            match (ask, answer) {
                (Ask::Pause, Ok(())) => assert!(self.paused),
                (Ask::Resume, Ok(())) => assert!(!self.paused),
                (Ask::Stop, answer) => assert_eq!(answer, Ok(())),
                _ => {}
            }
        }
    }

    fn next(&mut self) {
        let step = self.queue.next_step();
        if let Some(step) = &step {
            assert_eq!(self.under_way, None, "one at a time");
            assert!(!self.over, "nothing after the end");
            match step {
                Step::Pause => assert!(self.entered && !self.paused),
                Step::Resume => assert!(self.paused),
                Step::PressPowerButton => assert!(self.entered),
                Step::Restart | Step::End(_) => {}
            }
            self.under_way = Some(step.clone());
        }
    }

    fn finish(&mut self, well: bool) {
        let Some(step) = self.under_way.take() else {
            return self.queue.finished(Ok(()));
        };
        match (&step, well) {
            (Step::Pause, true) => self.paused = true,
            (Step::Resume, true) => self.paused = false,
            (Step::Restart, true) => {
                self.restarts += 1;
                (self.paused, self.entered) = (false, false);
            }
            (Step::End(_), _) | (Step::Restart, false) => self.over = true,
            _ => {}
        }
        let failed = || Err("the host failed".into());
        self.queue.finished(if well { Ok(()) } else { failed() });
    }

    /// Everything goes well from here on.
    fn settle(&mut self) {
        for _ in 0..2 * self.asked + 10 {
            self.happen(&Happening::Next);
            self.happen(&Happening::Finished(true));
            self.happen(&Happening::Entered);
        }
    }
}

proptest! {
    #[test]
    fn steps_fit_the_machine_and_everyone_is_answered_once(happenings in happenings()) {
        let mut driver = Driver::default();
        for happening in &happenings {
            driver.happen(happening);
        }
        driver.settle();
        prop_assert!(driver.open.is_empty(), "{:?} wait for ever", driver.open);
        prop_assert!(driver.restarts <= driver.resets);
        let state = driver.queue.state();
        let expected = match (driver.over, driver.paused) {
            (true, _) => VmState::Ending,
            (false, true) => VmState::Paused,
            (false, false) => VmState::Running,
        };
        prop_assert_eq!(state, expected);
    }

    #[test]
    fn a_stop_always_ends_the_machine(happenings in happenings()) {
        let mut driver = Driver::default();
        for happening in &happenings {
            driver.happen(happening);
        }
        driver.happen(&Happening::Ask(Ask::Stop));
        driver.settle();
        prop_assert!(driver.over);
    }
}
