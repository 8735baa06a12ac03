//! What becomes of a test.

use crate::console::Text;

/// Why a test ended early.
pub enum End {
    Failed(Text<240>),
    /// The machine lacks what the test is about.
    Absent(&'static str),
}

pub type Outcome<T = ()> = Result<T, End>;

/// Ends the test unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err($crate::report::End::Failed($crate::console::Text::format(format_args!($($why)+))));
        }
    };
}

/// Ends the test unless both sides are equal.
#[macro_export]
macro_rules! same {
    ($left:expr, $right:expr, $($what:tt)+) => {
        match (&$left, &$right) {
            (left, right) => $crate::ensure!(
                *left == *right,
                "{}: {:?} is not {:?}", format_args!($($what)+), left, right
            ),
        }
    };
}
