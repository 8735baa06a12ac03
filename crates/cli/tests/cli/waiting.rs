//! `--wait`, `hearth wait`, and Ctrl-C.

use std::time::Duration;

use hearth_api::InstanceState::{Pending, Running, ShuttingDown, Stopped, Terminated};
use rustix::process::{Pid, Signal, kill_process};

use crate::fake::{Fake, INSTANCE};

#[tokio::test(flavor = "multi_thread")]
async fn run_instances_waits_until_running() {
    let fake = Fake::start().await;
    *fake.script.states.lock().unwrap() = vec![Pending, Running];
    let run = ["run-instances", "--image-id", "ami-1", "--wait"];
    let state = ["--query", "Instances[0].State.Name", "--output", "text"];
    assert_eq!(fake.ok(&[&run[..], &state].concat()).await, "running\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_waited_for_is_told() {
    let fake = Fake::start().await;
    *fake.script.states.lock().unwrap() = vec![Stopped];
    let stop = ["stop-instances", "--instance-ids", INSTANCE, "--wait"];
    let state = ["--query", "StoppingInstances[0].CurrentState.Name"];
    assert_eq!(fake.ok(&[&stop[..], &state].concat()).await, "\"stopped\"\n");
}

/// Runs a command that must fail, and answers what it says.
async fn failure(fake: &Fake, arguments: &[&str]) -> String {
    let output = fake.run(arguments).await;
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(255), "{errors}");
    errors
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impossible_state_ends_the_wait() {
    let fake = Fake::start().await;
    let sentence = |state: &str| {
        format!(
            "Waiter InstanceRunning failed: Waiter encountered a terminal failure state: For expression \
             \"Reservations[].Instances[].State.Name\" we matched expected path: \"{state}\" at least once"
        )
    };
    *fake.script.states.lock().unwrap() = vec![Terminated];
    let errors = failure(&fake, &["run-instances", "--image-id", "ami-1", "--wait"]).await;
    let reason = "; Server.InternalError: the host is out of luck\n";
    assert_eq!(errors, sentence("terminated") + reason);
    // Which is no failure for those that have not started it.
    *fake.script.states.lock().unwrap() = vec![Stopped];
    let errors = failure(&fake, &["start-instances", "--instance-ids", INSTANCE, "--wait"]).await;
    assert_eq!(errors, sentence("stopped") + "\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_has_an_end() {
    let fake = Fake::start().await;
    *fake.script.states.lock().unwrap() = vec![ShuttingDown];
    let terminate = ["terminate-instances", "--instance-ids", INSTANCE];
    let errors = failure(
        &fake,
        &[&terminate[..], &["--wait", "--wait-timeout", "1"]].concat(),
    )
    .await;
    assert_eq!(
        errors,
        "Waiter InstanceTerminated failed: Max attempts exceeded\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn waiters_are_ec2s() {
    let fake = Fake::start().await;
    *fake.script.states.lock().unwrap() = vec![Pending, Running];
    let running = ["wait", "instance-running", "--instance-ids", INSTANCE];
    assert_eq!(fake.ok(&running).await, "");
    assert_eq!(fake.asked().len(), 2);
    assert_eq!(fake.ok(&["wait", "vpc-exists", "--vpc-ids", "vpc-1"]).await, "");
    let errors = failure(&fake, &["wait", "subnet-available"]).await;
    assert_eq!(
        errors,
        "Waiter SubnetAvailable failed: An error occurred (Unimplemented): \n"
    );
    let missing = [
        "wait",
        "instance-stopped",
        "--instance-ids",
        "i-00000000000000000",
    ];
    let errors = failure(&fake, &missing).await;
    assert!(
        errors.starts_with(
            "Waiter InstanceStopped failed: An error occurred (InvalidInstanceID.NotFound): The"
        ),
        "{errors}"
    );
    let gone = ["wait", "vpc-exist", "--vpc-ids", "vpc-1"];
    assert_eq!(fake.run(&gone).await.status.code(), Some(252));
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_cleanly() {
    let fake = Fake::start().await;
    *fake.script.states.lock().unwrap() = vec![Pending];
    let child = fake.spawn(&["run-instances", "--image-id", "ami-1", "--wait"]);
    let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    // Asked twice (run, describe): the command is waiting now.
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
