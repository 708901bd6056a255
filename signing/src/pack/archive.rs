//! The one form of ustar that packs have.

/// Everything in an archive begins at a multiple of it.
pub const BLOCK_BYTES: usize = 512;

/// What ends an archive; nothing follows.
pub const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// Where the size stands: eleven octal digits and a NUL.
const SIZE: std::ops::Range<usize> = 124..136;

/// Where the checksum stands: six octal digits, a NUL and a space.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// Returns the header of a member: a regular file with rights 644, of user and group 0 and the first second of 1970 (of the
/// zeroth, GNU tar warns), so that the same members always make the same archive.
///
/// `path` has at most 100 bytes and `size` at most eleven octal digits; more is cut off, and no reader takes it.
#[must_use]
pub fn header(path: &str, size: u64) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let mut put = |at: usize, bytes: &[u8], most: usize| {
        for (to, from) in block.iter_mut().skip(at).zip(bytes.iter().take(most)) {
            *to = *from;
        }
    };
    put(0, path.as_bytes(), 100);
    put(100, b"0000644\0", 8);
    put(108, b"0000000\0", 8);
    put(116, b"0000000\0", 8);
    put(SIZE.start, format!("{size:011o}").as_bytes(), 11);
    put(136, b"00000000001\0", 12);
    put(156, b"0", 1);
    put(257, b"ustar\x0000", 8);
    put(329, b"0000000\0", 8);
    put(337, b"0000000\0", 8);
    // The sum is over the block with spaces in its own place.
    put(CHECKSUM.start, b"        ", 8);
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    for (to, from) in block.iter_mut().skip(CHECKSUM.start).zip(format!("{sum:06o}\0 ").bytes()) {
        *to = from;
    }
    block
}

/// Returns what stands between a member of this size and what follows it.
#[must_use]
pub fn padding(size: u64) -> &'static [u8] {
    const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    let block = BLOCK_BYTES as u64;
    let missing = usize::try_from((block - size % block) % block).unwrap_or(0);
    ZEROS.get(..missing).unwrap_or_default()
}

/// Returns the size that a header gives; whether it is the header that it should be is another matter.
pub(super) fn size(block: &[u8]) -> Option<u64> {
    let digits = block.get(SIZE)?.strip_suffix(b"\0")?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

/// Returns the name that a header gives, to say it to a person.
pub(super) fn name(block: &[u8]) -> String {
    let name = block.iter().take(100).copied().take_while(|byte| *byte != 0);
    String::from_utf8_lossy(&name.collect::<Vec<u8>>()).escape_debug().to_string()
}
