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
// The same key as a SubjectPublicKeyInfo in DER.
const ED25519_DER: &str = "MCowBQYDK2VwAyEAlOXpdrPOHpH4tmoQ8X89bl60q/sPgOtwGw/uPVpVaR0=";
const RSA_1024_LINE: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDGpoJFI7aIp/CmAJEfPTY/yUnVPn56xshgPeHz/24Hp/WGWQZSDT\
    cYe6bDa1Z8wvHeqsvY4reRqE5nug0Zz7o5TR0p1oDeud60U4LwTn/m14dekOG33nsCruyX1A4W0kjyjEXQY5Lk+39SXD/v+2ngqyA9ste8VnzTI3B\
    Sm1tbDw== t";
const RSA_1024_MD5: &str = "5e:22:4f:58:50:59:fb:ec:81:d7:50:c4:fe:c0:58:87";
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

fn ssh_keygen(line: &str, arguments: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pub");
    std::fs::write(&path, line).unwrap();
    let output = Command::new("ssh-keygen")
        .args(arguments)
        .arg("-f")
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn all_formats_of_a_key_are_the_same_key() {
    for line in [RSA_LINE, RSA_1024_LINE, ED25519_LINE] {
        let plain = import("mine", line.as_bytes()).unwrap();
        for spelling in [
            line.replace(' ', "  "),
            line.replace(' ', "\t"),
            format!("  {line}\r\n"),
        ] {
            assert_eq!(
                import("mine", spelling.as_bytes()).as_ref(),
                Ok(&plain),
                "{spelling}"
            );
        }
        // `ssh-keygen -e -m RFC4716`, with a comment that goes on in a second line.
        let foreign = ssh_keygen(line, &["-e", "-m", "RFC4716"]);
        assert_eq!(
            import("mine", foreign.as_bytes()).as_ref(),
            Ok(&plain),
            "{foreign}"
        );
        let comment = "BEGIN SSH2 PUBLIC KEY ----\nComment: \"a long one: \\\nwhich goes on\"\nx-tag: none";
        let headers = foreign.replacen("BEGIN SSH2 PUBLIC KEY ----", comment, 1);
        assert_eq!(
            import("mine", headers.as_bytes()).as_ref(),
            Ok(&plain),
            "{headers}"
        );
        let cut = foreign.replace("---- END SSH2 PUBLIC KEY ----", "");
        assert!(import("mine", cut.as_bytes()).is_err());
    }
    // ssh-keygen cannot do it for ED25519.
    for line in [RSA_LINE, RSA_1024_LINE] {
        let pem = ssh_keygen(line, &["-e", "-m", "PKCS8"]);
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let plain = import("mine", line.as_bytes()).unwrap();
        assert_eq!(import("mine", base64.as_bytes()).as_ref(), Ok(&plain));
        let lines = base64.as_bytes().chunks(64).collect::<Vec<_>>().join(&b'\n');
        assert_eq!(import("mine", &lines).as_ref(), Ok(&plain));
    }
    let plain = import("mine", ED25519_LINE.as_bytes()).unwrap();
    assert_eq!(import("mine", ED25519_DER.as_bytes()), Ok(plain));
}

#[test]
fn an_rsa_key_of_1024_bits_has_ec2s_fingerprint() {
    let imported = import("mine", RSA_1024_LINE.as_bytes()).unwrap();
    assert_eq!(
        (imported.key_type, imported.fingerprint.as_str()),
        (RSA, RSA_1024_MD5)
    );
}

#[test]
fn a_refusal_says_what_is_wrong_and_nothing_of_the_key() {
    let long = format!("{ED25519_LINE} {}", "x".repeat(20_000));
    let private = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----";
    for (material, why) in [
        ("", "it is empty"),
        (private, "it is a private key"),
        ("AAAA", "no public key in DER"),
        (&long, "longer than 16384 bytes"),
    ] {
        let error = import("mine", material.as_bytes()).unwrap_err();
        assert!(error.message.contains(why), "{material}: {error}");
        assert!(
            !error.message.contains("c2VjcmV0") && error.message.len() < 400,
            "{error}"
        );
    }
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
