use std::sync::Arc;

use super::*;

/// A cipher that others do not have.
pub(crate) fn cipher(seed: u8) -> Arc<Cipher> {
    Arc::new(Cipher::new(&Key::new(&testing_bytes(seed)).unwrap()).unwrap())
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn key(one: &str, two: &str) -> Key {
    Key::new(&unhex(&format!("{one}{two}"))).unwrap()
}

/// IEEE 1619-2007, annex B, vectors 10 to 12: AES-256 with data units of 512 bytes. Of the second and third only the
/// beginning is compared.
#[test]
fn xts_is_that_of_ieee_1619() {
    let key = key(
        "2718281828459045235360287471352662497757247093699959574966967627",
        "3141592653589793238462643383279502884197169399375105820974944592",
    );
    let cipher = Cipher::new(&key).unwrap();
    let plain: Vec<u8> = (0..512).map(|nth| nth as u8).collect();
    let tenth = "
        1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b
        5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd
        5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0
        c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca
        2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0
        b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f
        93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec
        583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a
        84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1
        505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae
        9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29
        a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac
        6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f
        645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed4385
        1ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa
        773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151";
    let eleventh = "77a31251618a15e6b92d1d66dffe7b50b50bad552305ba0217a610688eff7e11";
    let twelfth = "e387aaa58ba483afa7e8eb469778317ecf4cf573aa9d4eac23f2cdf914e4e200";
    for (number, expected) in [(0xff, tenth), (0xffff, eleventh), (0xff_ffff, twelfth)] {
        let mut sector = plain.clone();
        cipher.encrypt(&mut sector, number).unwrap();
        let expected = unhex(expected);
        assert_eq!(sector[..expected.len()], expected, "{number:#x}");
        cipher.decrypt(&mut sector, number).unwrap();
        assert_eq!(sector, plain);
    }
}

#[test]
fn sectors_differ_by_their_numbers_and_come_back() {
    let cipher = cipher(3);
    let mut sectors = vec![7; 8 * UNIT];
    cipher.encrypt(&mut sectors, (1 << 37) - 8).unwrap();
    let mut seen: Vec<&[u8]> = sectors.chunks(UNIT).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 8);
    // One at a time they are the same.
    let mut last = sectors[7 * UNIT..].to_vec();
    cipher.decrypt(&mut last, (1 << 37) - 1).unwrap();
    assert_eq!(last, [7; UNIT]);
    cipher.decrypt(&mut sectors, (1 << 37) - 8).unwrap();
    assert_eq!(sectors, [7; 8 * UNIT]);
}

#[test]
fn a_hole_is_zeros_and_written_zeros_are_no_hole() {
    let cipher = cipher(3);
    let mut sectors = vec![0; 2 * UNIT];
    cipher.encrypt(&mut sectors[..UNIT], 5).unwrap();
    assert_ne!(sectors[..UNIT], [0; UNIT]);
    cipher.decrypt(&mut sectors, 5).unwrap();
    assert_eq!(sectors, [0; 2 * UNIT]);
}

#[test]
fn what_is_no_key_or_no_sector_is_refused() {
    assert!(Key::new(&[1; KEY_LEN - 1]).is_none() && Key::new(&[1; KEY_LEN + 1]).is_none());
    let equal = Key::new(&[1; KEY_LEN]).unwrap();
    let error = Cipher::new(&equal).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let cipher = cipher(3);
    for len in [1, 16, UNIT - 1, UNIT + 16] {
        assert!(cipher.encrypt(&mut vec![1; len], 0).is_err(), "{len}");
        assert!(cipher.decrypt(&mut vec![1; len], 0).is_err(), "{len}");
    }
    cipher.encrypt(&mut [], 0).unwrap();
}

#[test]
fn a_key_does_not_show_itself() {
    let key = Key::new(&[0xAB; KEY_LEN]).unwrap();
    let mut other = testing_bytes(9);
    other[0] = 0xAB;
    let cipher = Cipher::new(&Key::new(&other).unwrap()).unwrap();
    assert_eq!(format!("{key:?} {cipher:?}"), "Key(..) Cipher(..)");
}

#[test]
fn threads_share_a_cipher() {
    let cipher = cipher(1);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let cipher = &cipher;
            scope.spawn(move || {
                for number in 0..500 {
                    let mut sectors = vec![thread; 4 * UNIT];
                    cipher.encrypt(&mut sectors, number).unwrap();
                    cipher.decrypt(&mut sectors, number).unwrap();
                    assert_eq!(sectors, [thread; 4 * UNIT]);
                }
            });
        }
    });
}

fn testing_bytes(seed: u8) -> Vec<u8> {
    (0..KEY_LEN).map(|nth| nth as u8 ^ seed).collect()
}
