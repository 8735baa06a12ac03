//! The real-Linux suite: what a guest that people run sees of each device.
