use super::*;

const LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

fn request() -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = named("h-of-my-own-choice");
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    (key, pem)
}

fn sign(authority: &Authority, pem: &str) -> CertificateDer<'static> {
    let request = HostRequest::parse(pem).unwrap();
    let signed = authority.sign_host("h-0123456789abcdef0", request).unwrap();
    CertificateDer::from_pem_slice(signed.as_bytes())
        .unwrap()
        .into_owned()
}

#[test]
fn the_authority_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let first = Authority::open(&dir.path().join("pki"), LIFE).unwrap();
    let second = Authority::open(&dir.path().join("pki"), LIFE).unwrap();
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
fn the_control_plane_chooses_the_subject_and_the_validity() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), LIFE).unwrap();
    let pem = request().1;
    let certificate = sign(&authority, &pem);
    let read = HostCertificate::read(&certificate).unwrap();
    assert_eq!(read.host_id, "h-0123456789abcdef0");
    assert_eq!(
        read.public_key_hash,
        HostRequest::parse(&pem).unwrap().public_key_hash
    );
    let left = read.not_after.duration_since(SystemTime::now()).unwrap();
    assert!(left <= LIFE && left > LIFE - DAY, "{left:?}");
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let backdated = now.as_secs() as i64 - parsed.validity().not_before.timestamp();
    assert!((86_400..86_460).contains(&backdated), "{backdated} s");
}

#[test]
fn certificates_of_the_same_key_differ_in_their_serials() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path(), LIFE).unwrap();
    let pem = request().1;
    let serial = |certificate: CertificateDer<'_>| {
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
        parsed.raw_serial().to_vec()
    };
    assert_ne!(serial(sign(&authority, &pem)), serial(sign(&authority, &pem)));
}

#[test]
fn nonsense_is_not_signed() {
    assert!(HostRequest::parse("nonsense").is_err());
    let other = request().1.replace('A', "B");
    assert!(HostRequest::parse(&other).is_err());
}

#[test]
fn a_damaged_authority_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), "half").unwrap();
    assert!(matches!(
        Authority::open(dir.path(), LIFE),
        Err(PkiError::Damaged { .. })
    ));
}
