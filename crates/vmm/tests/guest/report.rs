//! What the guest says about its tests.

/// From lines like `test block::flushes ... ok`.
pub struct Report<'a> {
    console: &'a str,
    passed: usize,
    failed: Vec<&'a str>,
    /// The guest has come to its end, and counted.
    complete: bool,
}

impl<'a> Report<'a> {
    pub fn parse(console: &'a str) -> Self {
        let tests = || console.lines().filter(|line| line.starts_with("test "));
        Self {
            console,
            passed: tests()
                .filter(|line| line.trim_end().ends_with(" ... ok"))
                .count(),
            failed: tests().filter(|line| line.contains(" ... FAILED")).collect(),
            complete: console.lines().any(|line| line.starts_with("suite: ")),
        }
    }

    /// Tests of what the machine lacks ("absent") are neither passed nor failed.
    pub fn assert_passed(&self, at_least: usize) {
        println!("{}", self.console);
        assert!(self.complete, "the guest broke off:\n{}", self.console);
        assert!(self.failed.is_empty(), "{}", self.failed.join("\n"));
        assert!(self.passed >= at_least, "only {} tests ran", self.passed);
    }
}
