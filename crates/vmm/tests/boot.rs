//! Boots real guests under real KVM.
