//! What the guest says about its tests.

/// From lines like `test block::flushes ... ok`.
pub struct Report<'a> {
    console: &'a str,
    passed: usize,
    others: Vec<&'a str>,
    /// The guest has come to its end, and counted.
    complete: bool,
}

impl<'a> Report<'a> {
    pub fn parse(console: &'a str) -> Self {
        let tests = || console.lines().filter(|line| line.starts_with("test "));
        let is_ok = |line: &&str| line.trim_end().ends_with(" ... ok");
        Self {
            console,
            passed: tests().filter(is_ok).count(),
            others: tests().filter(|line| !is_ok(line)).collect(),
            complete: console.lines().any(|line| line.starts_with("suite: ")),
        }
    }

    pub fn assert_passed(&self, at_least: usize) {
        println!("{}", self.console);
        assert!(self.complete, "the guest broke off:\n{}", self.console);
        assert!(self.others.is_empty(), "{}", self.others.join("\n"));
        assert!(self.passed >= at_least, "only {} tests ran", self.passed);
    }
}
