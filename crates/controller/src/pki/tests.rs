use super::*;

fn request() -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = named("h-of-my-own-choice");
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    (key, pem)
}

#[test]
fn the_authority_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let first = Authority::open(&dir.path().join("pki")).unwrap();
    let second = Authority::open(&dir.path().join("pki")).unwrap();
    assert_eq!(first.fingerprint(), second.fingerprint());
    assert_eq!(first.certificate_pem(), second.certificate_pem());
    assert!(!first.certificate_pem().contains("PRIVATE"));
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(dir.path().join("pki/ca.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_control_plane_chooses_the_subject() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let signed = authority.sign_host("h-0123456789abcdef0", &request().1).unwrap();
    let certificate = CertificateDer::from_pem_slice(signed.as_bytes()).unwrap();
    assert_eq!(common_name(&certificate).as_deref(), Some("h-0123456789abcdef0"));
}

#[test]
fn nonsense_is_not_signed() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    assert!(authority.sign_host("h-1", "nonsense").is_err());
}

#[test]
fn a_damaged_authority_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), "half").unwrap();
    assert!(matches!(
        Authority::open(dir.path()),
        Err(PkiError::Damaged { .. })
    ));
}
