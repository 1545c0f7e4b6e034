//! The little of ZIP that reading a workbook needs.

use std::io::{self, BufRead, BufReader, Read};

use flate2::read::DeflateDecoder;

/// Bytes that a member may hold unpacked: a sheet of a million rows is well below, a bomb is not.
const PLAIN_MAX: u64 = 2 << 30;

/// A workbook's archive, in memory as it is packed.
pub(super) struct Archive {
    bytes: Vec<u8>,
    members: Vec<Member>,
}

struct Member {
    name: String,
    deflated: bool,
    start: usize,
    packed: usize,
}

fn number(bytes: &[u8], at: usize, width: usize) -> Option<usize> {
    let field = bytes.get(at..at.checked_add(width)?)?;
    Some(field.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

impl Archive {
    /// # Errors
    /// With what is wrong with the archive.
    pub(super) fn open(bytes: Vec<u8>) -> Result<Self, String> {
        let members = directory(&bytes)
            .ok_or("is no workbook, or is damaged: save it as .xlsx (Office Open XML), without a password")??;
        Ok(Self { bytes, members })
    }

    /// A member, unpacked as it is read.
    ///
    /// # Errors
    /// When there is none of this name.
    pub(super) fn member(&self, name: &str) -> Result<Box<dyn BufRead + '_>, String> {
        let same = |member: &&Member| member.name.trim_start_matches('/').eq_ignore_ascii_case(name);
        let member = self.members.iter().find(same).ok_or_else(|| format!("is no workbook: it lacks {name}"))?;
        let packed = &self.bytes[member.start..member.start + member.packed];
        Ok(if member.deflated {
            Box::new(BufReader::new(Bounded { inner: DeflateDecoder::new(packed), left: PLAIN_MAX }))
        } else {
            Box::new(packed)
        })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.name.eq_ignore_ascii_case(name))
    }
}

/// The members by the central directory; `None` where the archive does not hold together.
fn directory(bytes: &[u8]) -> Option<Result<Vec<Member>, String>> {
    let window = bytes.len().saturating_sub(22 + 0xffff);
    let end = (window..bytes.len().saturating_sub(21)).rev().find(|at| bytes[*at..].starts_with(b"PK\x05\x06"))?;
    let (count, mut at) = (number(bytes, end + 10, 2)?, number(bytes, end + 16, 4)?);
    if count == 0xffff || at == 0xffff_ffff {
        return Some(Err("is larger than 4 GiB: split it".to_owned()));
    }
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        if !bytes.get(at..)?.starts_with(b"PK\x01\x02") {
            return None;
        }
        let (flags, method) = (number(bytes, at + 8, 2)?, number(bytes, at + 10, 2)?);
        let packed = number(bytes, at + 20, 4)?;
        let (name, extra, comment) =
            (number(bytes, at + 28, 2)?, number(bytes, at + 30, 2)?, number(bytes, at + 32, 2)?);
        let local = number(bytes, at + 42, 4)?;
        let text = String::from_utf8_lossy(bytes.get(at + 46..at + 46 + name)?).into_owned();
        if flags & 1 != 0 {
            return Some(Err("is encrypted: save it without a password".to_owned()));
        }
        if !matches!(method, 0 | 8) {
            return Some(Err(format!("packs {text} by method {method}: save it anew as .xlsx")));
        }
        let start = local + 30 + number(bytes, local + 26, 2)? + number(bytes, local + 28, 2)?;
        bytes.get(start..start.checked_add(packed)?)?;
        members.push(Member { name: text, deflated: method == 8, start, packed });
        at += 46 + name + extra + comment;
    }
    Some(Ok(members))
}

/// A reader that fails rather than go on without end.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other("a part of the workbook is larger than 2 GiB: split it"))?;
        Ok(read)
    }
}
