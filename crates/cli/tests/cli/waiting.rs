//! `--wait`, and Ctrl-C.

use std::time::Duration;

use hearth_api::InstanceState::{Pending, Running, ShuttingDown, Stopped, Stopping, Terminated};
use rustix::process::{Pid, Signal, kill_process};

use crate::fake::{Fake, INSTANCE};

#[tokio::test(flavor = "multi_thread")]
async fn run_instances_waits_until_running() {
    let fake = Fake::start().await;
    *fake.script.states.lock().unwrap() = vec![Pending, Pending, Running];
    let output = fake
        .run(&[
            "run-instances",
            "--image-id",
            "ami-1",
            "--wait",
            "--query",
            "Instances[0].State.Name",
            "--output",
            "text",
        ])
        .await;
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "running\n");
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        format!("{INSTANCE}: pending\n{INSTANCE}: running\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impossible_state_ends_the_wait() {
    let fake = Fake::start().await;
    *fake.script.states.lock().unwrap() = vec![Pending, Terminated];
    let output = fake
        .run(&["run-instances", "--image-id", "ami-1", "--wait"])
        .await;
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(255), "{errors}");
    let sentence = format!(
        "Waiter InstanceRunning failed: {INSTANCE} is terminated: Server.InternalError: the host is out of luck\n"
    );
    assert!(errors.ends_with(&sentence), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_breaks_off_is_taken_up_again() {
    let fake = Fake::start().await;
    *fake.script.states.lock().unwrap() = vec![Stopping];
    let stop = tokio::spawn({
        let states = fake.script.states.clone();
        let asked = fake.script.asked.clone();
        async move {
            // The fake's stream ends after its states; the next watch shall see what came meanwhile.
            while asked.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            states.lock().unwrap().push(Stopped);
        }
    });
    let printed = fake
        .ok(&[
            "stop-instances",
            "--instance-ids",
            INSTANCE,
            "--wait",
            "--query",
            "StoppingInstances[0].CurrentState.Name",
        ])
        .await;
    assert_eq!(printed, "\"stopped\"\n");
    stop.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_has_an_end() {
    let fake = Fake::start().await;
    *fake.script.states.lock().unwrap() = vec![ShuttingDown];
    let output = fake
        .run(&[
            "terminate-instances",
            "--instance-ids",
            INSTANCE,
            "--wait",
            "--wait-timeout",
            "1",
        ])
        .await;
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert!(
        errors.ends_with(&format!("{INSTANCE} did not get there in 1 s\n")),
        "{errors}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_cleanly() {
    let fake = Fake::start().await;
    *fake.script.states.lock().unwrap() = vec![Pending];
    let child = fake.spawn(&["run-instances", "--image-id", "ami-1", "--wait"]);
    let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    // Asked twice (run, watch): the command is waiting now.
    while fake.asked().len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .ends_with("Interrupted.\n")
    );
}
