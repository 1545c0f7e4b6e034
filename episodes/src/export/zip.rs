//! The little of ZIP that a workbook needs: deflated members, written front to back.

use std::io::{self, Write};

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

/// What one member came to.
struct Entry {
    name: &'static str,
    crc: u32,
    packed: u32,
    plain: u32,
    offset: u32,
}

/// Writes members one after the other. Sizes follow the data, as they are not known before.
pub(crate) struct ZipWriter<W: Write> {
    out: Counted<W>,
    entries: Vec<Entry>,
}

struct Counted<W> {
    inner: W,
    written: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Needed version 2.0 (deflate), flags: sizes follow, names are UTF-8; method deflate; 1 January 1980, so that the same
/// rows give the same bytes.
const HEAD: [u8; 10] = [20, 0, 0x08, 0x08, 8, 0, 0, 0, 0x21, 0];

fn small(size: u64) -> io::Result<u32> {
    u32::try_from(size)
        .map_err(|_| io::Error::other("a workbook cannot be larger than 4 GiB: ask for fewer rows a file"))
}

impl<W: Write> ZipWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { out: Counted { inner, written: 0 }, entries: Vec::new() }
    }

    /// Begins a member; [`Member::finish`] gives the writer back.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn member(mut self, name: &'static str) -> io::Result<Member<W>> {
        let offset = small(self.out.written)?;
        self.out.write_all(b"PK\x03\x04")?;
        self.out.write_all(&HEAD)?;
        self.out.write_all(&[0; 12])?;
        self.out.write_all(&(name.len() as u16).to_le_bytes())?;
        self.out.write_all(&[0; 2])?;
        self.out.write_all(name.as_bytes())?;
        let start = self.out.written;
        let packer = DeflateEncoder::new(self.out, Compression::new(4));
        Ok(Member { packer, crc: Crc::new(), name, offset, start, entries: self.entries })
    }

    /// Writes a whole member.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn whole(self, name: &'static str, text: &str) -> io::Result<Self> {
        let mut member = self.member(name)?;
        member.write_all(text.as_bytes())?;
        member.finish()
    }

    /// Writes the directory.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        let start = small(self.out.written)?;
        for entry in &self.entries {
            self.out.write_all(b"PK\x01\x02")?;
            self.out.write_all(&[20, 0])?;
            self.out.write_all(&HEAD)?;
            for size in [entry.crc, entry.packed, entry.plain] {
                self.out.write_all(&size.to_le_bytes())?;
            }
            self.out.write_all(&(entry.name.len() as u16).to_le_bytes())?;
            // no extra field, no comment, first disk, no attributes
            self.out.write_all(&[0; 12])?;
            self.out.write_all(&entry.offset.to_le_bytes())?;
            self.out.write_all(entry.name.as_bytes())?;
        }
        let length = small(self.out.written - u64::from(start))?;
        let count = (self.entries.len() as u16).to_le_bytes();
        self.out.write_all(b"PK\x05\x06\0\0\0\0")?;
        self.out.write_all(&count)?;
        self.out.write_all(&count)?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&start.to_le_bytes())?;
        self.out.write_all(&[0; 2])?;
        Ok(self.out.inner)
    }
}

/// A member that is being written.
pub(crate) struct Member<W: Write> {
    packer: DeflateEncoder<Counted<W>>,
    crc: Crc,
    name: &'static str,
    offset: u32,
    start: u64,
    entries: Vec<Entry>,
}

impl<W: Write> Write for Member<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.packer.write(bytes)?;
        self.crc.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> Member<W> {
    /// Ends the member.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn finish(self) -> io::Result<ZipWriter<W>> {
        let plain = small(self.packer.total_in())?;
        let mut out = self.packer.finish()?;
        let packed = small(out.written - self.start)?;
        let crc = self.crc.sum();
        out.write_all(b"PK\x07\x08")?;
        for size in [crc, packed, plain] {
            out.write_all(&size.to_le_bytes())?;
        }
        let mut entries = self.entries;
        entries.push(Entry { name: self.name, crc, packed, plain, offset: self.offset });
        Ok(ZipWriter { out, entries })
    }
}
