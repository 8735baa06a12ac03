//! The machine's states and the queue of what was asked of it: pure logic, no threads, no KVM.
//!
//! The driver (the control thread) tells the queue what clients ask for, what the guest did and how each
//! [`Step`] went; the queue says which step is next. One step is under way at a time; what comes in meanwhile
//! is looked at when it has [`finished`](RequestQueue::finished), in the order in which it came.
//!
//! | asked | starting | running | paused | ending |
//! |---|---|---|---|---|
//! | pause | waits for the first vCPU entry | → paused | nothing to do | refused |
//! | resume | nothing to do | nothing to do | → running | refused |
//! | power button | waits for the first vCPU entry | pressed | pressed; the guest hears it once resumed | refused |
//! | reset | → starting | → starting | → starting: the fresh boot is not paused | refused |
//! | stop, power-off, crash | → ending | → ending | → ending | nothing to do |
//!
//! - *Nothing to do* is answered as done: the machine is as asked.
//! - *Reset*, by a client or by the guest, goes before all that waits, for the boot that they were meant for is
//!   over; several resets that wait are one. What waits is then for the fresh boot.
//! - *Stop*, the guest's power-off and a crash go before everything, a waiting reset too; the first of them
//!   says how the machine ended. What waits is refused.
//! - Reset and stop are answered when they are accepted; pause, resume and power button when they are done.
//! - A request like the last one that waits is merged with it.
//! - A pause fails if the boot is ending by itself: it is refused, and how the boot ends comes as ever. A reset
//!   whose boot cannot be built ends the machine as not started.

use std::collections::VecDeque;

use crate::control::VmState;
use crate::notices::Ending;
use crate::spec::Outcome;

/// What is said of a machine whose firmware gave up.
pub const NOTHING_BOOTABLE: &str =
    "the firmware found no boot loader on the disks that it could start; the console shows which it tried";

/// What a client can ask of the machine as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Pause,
    Resume,
    PowerButton,
    Reset,
    Stop,
}

/// What the driver has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Park the vCPUs, then stop the devices' workers and keep their queues.
    Pause,
    /// Start the workers with those queues, then the vCPUs.
    Resume,
    PressPowerButton,
    /// Tear this boot down and build the next.
    Restart,
    /// Tear the machine down; nothing comes after it.
    End(Outcome),
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the machine is ending")]
    Ending,
    #[error("{0}")]
    Failed(String),
}

/// An answer for whoever holds the ticket.
pub type Answer<T> = (T, Result<(), Refusal>);

/// The state machine. `T` is a ticket, by which the driver knows whom to answer.
pub struct RequestQueue<T> {
    state: VmState,
    under_way: Option<(Step, Vec<T>)>,
    waiting: VecDeque<(Ask, Vec<T>)>,
    /// How this boot ends, as soon as nothing is under way.
    ending: Option<Ending>,
    answers: Vec<Answer<T>>,
}

impl<T> RequestQueue<T> {
    /// The first boot is being built.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: VmState::Starting,
            under_way: None,
            waiting: VecDeque::new(),
            ending: None,
            answers: Vec::new(),
        }
    }

    /// The state at rest; while a step is under way, the one that it started from.
    #[must_use]
    pub fn state(&self) -> VmState {
        self.state
    }

    /// A client asks for something; the answer is among [`Self::answers`], now or later.
    pub fn ask(&mut self, ask: Ask, ticket: T) {
        match (ask, self.is_ending()) {
            (Ask::Stop, _) => {
                self.end(Ending::Stop);
                self.answers.push((ticket, Ok(())));
            }
            (_, true) => self.answers.push((ticket, Err(Refusal::Ending))),
            (Ask::Reset, false) => {
                self.end(Ending::Reset);
                self.answers.push((ticket, Ok(())));
            }
            (_, false) => match self.waiting.back_mut() {
                Some((last, tickets)) if *last == ask => tickets.push(ticket),
                _ => self.waiting.push_back((ask, vec![ticket])),
            },
        }
    }

    /// A vCPU is about to run guest code for the first time in this boot.
    pub fn entered(&mut self) {
        if self.state == VmState::Starting {
            self.state = VmState::Running;
        }
    }

    /// This boot ends, by the guest's doing or a client's.
    pub fn end(&mut self, ending: Ending) {
        if matches!(self.ending, None | Some(Ending::Reset)) {
            self.ending = Some(ending);
        }
    }

    /// Hands the next step out, if one is due.
    pub fn next_step(&mut self) -> Option<Step> {
        if self.under_way.is_some() || self.state == VmState::Ending {
            return None;
        }
        match self.ending.take() {
            Some(Ending::Reset) => return Some(self.begin(Step::Restart, Vec::new())),
            Some(Ending::PowerOff) => return Some(self.begin_end(Outcome::GuestPowerOff)),
            Some(Ending::Stop) => return Some(self.begin_end(Outcome::Stopped)),
            Some(Ending::NothingBootable) => {
                let message = NOTHING_BOOTABLE.to_owned();
                return Some(self.begin_end(Outcome::StartFailed { message }));
            }
            Some(Ending::Crash(message)) => return Some(self.begin_end(Outcome::Crashed { message })),
            None => {}
        }
        loop {
            let step = match (self.waiting.front()?.0, self.state) {
                (Ask::Pause | Ask::PowerButton, VmState::Starting) => return None,
                (Ask::Pause, VmState::Running) => Some(Step::Pause),
                (Ask::Resume, VmState::Paused) => Some(Step::Resume),
                (Ask::PowerButton, _) => Some(Step::PressPowerButton),
                _ => None,
            };
            let (_, tickets) = self.waiting.pop_front()?;
            match step {
                Some(step) => return Some(self.begin(step, tickets)),
                None => self.answer(tickets, &Ok(())),
            }
        }
    }

    /// The step that was handed out is done, or failed for a reason.
    pub fn finished(&mut self, result: Result<(), String>) {
        let Some((step, tickets)) = self.under_way.take() else {
            return;
        };
        match (&step, &result) {
            (Step::Pause, Ok(())) => self.state = VmState::Paused,
            (Step::Resume, Ok(())) => self.state = VmState::Running,
            (Step::Restart, Ok(())) => self.state = VmState::Starting,
            (Step::Restart, Err(_)) => self.state = VmState::Ending,
            (Step::PressPowerButton | Step::End(_), _) | (Step::Pause | Step::Resume, Err(_)) => {}
        }
        self.answer(tickets, &result.map_err(Refusal::Failed));
        if self.is_ending() {
            self.refuse_waiting();
        }
    }

    /// The answers that have come up since the last call.
    pub fn answers(&mut self) -> Vec<Answer<T>> {
        std::mem::take(&mut self.answers)
    }

    /// Nothing but the end comes after this.
    fn is_ending(&self) -> bool {
        let at_an_end = !matches!(self.ending, None | Some(Ending::Reset));
        at_an_end || self.state == VmState::Ending
    }

    fn begin(&mut self, step: Step, tickets: Vec<T>) -> Step {
        self.under_way = Some((step.clone(), tickets));
        step
    }

    fn begin_end(&mut self, outcome: Outcome) -> Step {
        self.state = VmState::Ending;
        self.refuse_waiting();
        self.begin(Step::End(outcome), Vec::new())
    }

    fn refuse_waiting(&mut self) {
        for (_, tickets) in std::mem::take(&mut self.waiting) {
            self.answer(tickets, &Err(Refusal::Ending));
        }
    }

    fn answer(&mut self, tickets: Vec<T>, result: &Result<(), Refusal>) {
        let answers = tickets.into_iter().map(|ticket| (ticket, result.clone()));
        self.answers.extend(answers);
    }
}

impl<T> Default for RequestQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
