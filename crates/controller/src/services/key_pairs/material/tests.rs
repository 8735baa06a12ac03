use std::io::Write as _;
use std::process::{Command, Stdio};

use super::*;

// Made by `ssh-keygen -t rsa -b 2048`, `-t ed25519` and `-t ecdsa`; fingerprints by `ssh-keygen -l`, and by
// `ssh-keygen -e -m PKCS8 | openssl rsa -pubin -outform DER | openssl md5 -c`.
const RSA_LINE: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQDrnD1w3xY4T9ZYYODL5G3VOp+ZU6SQiB/v6xEJ0GL9ZlhVwoXASf8754\
    CW8Np5JiIkecTq2rIXppTdDFu+hdMkgo/oHPrlhrKd3Z2cDzTx8s6aym15XG1+RRrJ6MQLNrFqcreXa/0hvhiiMtpPNrn52lHbZHFkgMeAEAuz0r\
    h1HXY9Z3q4oYCTtq2cm4r58UuWLqU3S/V/vtgwhfUBsh+7EDZ7fuqht+AYVM0+HoGWdOG1g8qxdbOab7yDFOWlYDsWJuKUdKO2B4RmMjEjX/Q5sF\
    5yAWC80Drg4wL5R2tgVDddHqfRzVbcpzpDRLAT1Vx58BXVy6k4mp8X1r4iIkiR t";
const RSA_MD5: &str = "86:37:87:62:71:dc:1e:62:a0:99:38:3f:77:82:22:b9";
const ED25519_LINE: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJTl6Xazzh6R+LZqEPF/PW5etKv7D4DrcBsP7j1aVWkd t";
const ED25519_SHA256: &str = "OGFO+KWjv13K8i0LRMIc0CCdgA1IGtiZ64JfMPQAn00=";
const ECDSA_LINE: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEY5wfN5VPGUNJtPBr6x\
    EBvCLUs97PRn3sjTfl3924FWcy0Pw0iWt01Yhb+tM72toDAxXtyp+mQPsyb1o3pDvTk= t";

#[test]
fn imported_keys_have_ec2s_fingerprints() {
    let rsa = import("mine", RSA_LINE.as_bytes()).unwrap();
    assert_eq!((rsa.key_type, rsa.fingerprint.as_str()), (RSA, RSA_MD5));
    let ed25519 = import("mine", format!("{ED25519_LINE}\n").as_bytes()).unwrap();
    assert_eq!(
        (ed25519.key_type, ed25519.fingerprint.as_str()),
        (ED25519, ED25519_SHA256)
    );
    // The comment becomes the pair's name.
    assert_eq!(ed25519.line, ED25519_LINE.replace(" t", " mine"));
}

#[test]
fn what_is_no_usable_public_key_is_refused() {
    let two = format!("{ED25519_LINE}\n{ED25519_LINE}");
    for material in [
        "",
        "ssh-rsa",
        "ssh-rsa AAAA",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        ECDSA_LINE,
        &two,
    ] {
        let error = import("mine", material.as_bytes()).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidKeyFormat, "{material}");
    }
    assert!(import("mine", &[0xff, 0xfe]).is_err());
}

#[test]
fn a_created_ed25519_pair_reads_back() {
    let created = create_ed25519("k").unwrap();
    let private = PrivateKey::from_openssh(&created.private_pem).unwrap();
    assert_eq!(private.public_key().to_openssh().unwrap(), created.public.line);
    assert!(
        created
            .private_pem
            .starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    );
    assert_eq!(
        import("k", created.public.line.as_bytes()).unwrap(),
        created.public
    );
}

#[test]
fn a_created_rsa_pairs_fingerprint_is_openssls() {
    let created = create_rsa("k").unwrap();
    assert!(
        created
            .private_pem
            .starts_with("-----BEGIN RSA PRIVATE KEY-----\n")
    );
    assert_eq!(
        import("k", created.public.line.as_bytes()).unwrap().line,
        created.public.line
    );
    let Some(der) = openssl(
        &["pkcs8", "-inform", "PEM", "-outform", "DER", "-topk8", "-nocrypt"],
        created.private_pem.as_bytes(),
    ) else {
        eprintln!("SKIPPED: a_created_rsa_pairs_fingerprint_is_openssls: openssl is absent");
        return;
    };
    let digest = openssl(&["sha1", "-c"], &der).unwrap();
    let digest = String::from_utf8(digest).unwrap();
    assert_eq!(
        digest.trim().rsplit(' ').next(),
        Some(created.public.fingerprint.as_str())
    );
}

fn openssl(arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(input).ok()?;
    let output = child.wait_with_output().ok()?;
    assert!(output.status.success());
    Some(output.stdout)
}
