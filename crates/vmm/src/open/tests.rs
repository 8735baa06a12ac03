use std::io::Write as _;

use hearth_block::overlay;
use rustix::pipe::pipe;

use super::*;

/// The reading end of a pipe with these bytes.
fn piped(bytes: &[u8]) -> OwnedFd {
    let (reader, writer) = pipe().unwrap();
    File::from(writer).write_all(bytes).unwrap();
    reader
}

/// Opens an overlay of two files under the key that a pipe holds.
fn opened(files: [&File; 2], key: Option<OwnedFd>) -> Result<DiskPlan, OpenError> {
    let spec = DiskSpec {
        id: "vol-1".into(),
        serial: "vol1".into(),
        read_only: false,
        cache: Default::default(),
        rate_limit: Default::default(),
        backing: DiskBacking::Overlay {
            data_fd: 0,
            map_fd: 1,
            base_fd: None,
            coming: None,
            dirty_fd: None,
            key: key.is_some().then_some(KeySpec { pipe_fd: 2 }),
            base_key: None,
            frozen: None,
        },
    };
    let files = files.map(|file| OwnedFd::from(file.try_clone().unwrap()));
    open_disk(
        &mut Passed::new(files.into_iter().chain(key).collect()),
        &spec,
        &Bases::default(),
    )
}

#[test]
fn a_disk_takes_its_key_out_of_a_pipe() {
    let [data, map] = [(); 2].map(|()| tempfile::tempfile().unwrap());
    overlay::create(&data, &map, 0, 1 << 20).unwrap();
    let key: Vec<u8> = (0..64).collect();
    let plan = opened([&data, &map], Some(piped(&key))).unwrap();
    plan.disk.write_at(&[7; 512], 0).unwrap();
    plan.disk.flush().unwrap();
    drop(plan);
    let mut sector = [0; 512];
    let read = |key: Option<&[u8]>, sector: &mut [u8]| {
        let plan = opened([&data, &map], key.map(piped)).unwrap();
        plan.disk.read_at(sector, 0).unwrap();
    };
    read(Some(&key), &mut sector);
    assert_eq!(sector, [7; 512]);
    read(None, &mut sector);
    assert_ne!(sector, [7; 512]);
    for wrong in [&key[..63], &[1; 64], &[]] {
        let error = opened([&data, &map], Some(piped(wrong))).err().unwrap();
        assert!(matches!(error, OpenError::Key { .. }), "{error}");
    }
}

#[test]
fn macs_are_six_octets() {
    assert_eq!(
        parse_mac("02:00:5e:10:00:fF").unwrap(),
        [2, 0, 0x5e, 0x10, 0, 0xff]
    );
    for wrong in [
        "",
        "02:00:5e:10:00",
        "02:00:5e:10:00:ff:00",
        "2:0:5e:10:0:ff",
        "02:00:5e:10:00:fg",
    ] {
        assert!(parse_mac(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn shapes_have_limits() {
    assert!(check_shape(1, 32).is_ok() && check_shape(32, 65536).is_ok());
    assert!(check_shape(0, 64).is_err() && check_shape(33, 64).is_err());
    assert!(check_shape(1, 31).is_err() && check_shape(1, u64::MAX).is_err());
}

#[test]
fn descriptors_are_taken_once_and_must_be_open() {
    let mut fds = Fds::default();
    assert!(fds.take(0, "disk").is_err());
    assert!(fds.take(9999, "disk").is_err());
    let fd = std::os::fd::IntoRawFd::into_raw_fd(tempfile::tempfile().unwrap());
    let taken = fds.take(fd, "disk").unwrap();
    assert!(fds.take(fd, "disk").is_err());
    drop(taken);
}
