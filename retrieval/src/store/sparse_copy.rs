//! Copies a folder without writing out the holes of its files: the engine's files are mostly holes.
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

const BLOCK: usize = 64 * 1024;

pub(crate) fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            copy_file(&entry.path(), &target)?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = File::create(to)?;
    let length = source.metadata()?.len();
    let mut block = vec![0; BLOCK];
    loop {
        let read = source.read(&mut block)?;
        if read == 0 {
            break;
        }
        if block[..read].iter().all(|byte| *byte == 0) {
            target.seek(SeekFrom::Current(i64::try_from(read).map_err(io::Error::other)?))?;
        } else {
            target.write_all(&block[..read])?;
        }
    }
    target.set_len(length)?;
    target.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_same_bytes_and_the_holes() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("inner")).unwrap();
        let mut bytes = vec![0_u8; 3 * BLOCK + 17];
        bytes[BLOCK + 5] = 7;
        fs::write(from.path().join("inner/file"), &bytes).unwrap();
        copy_folder(from.path(), &to.path().join("copy")).unwrap();
        assert_eq!(fs::read(to.path().join("copy/inner/file")).unwrap(), bytes);
    }
}
