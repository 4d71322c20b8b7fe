//! A folder of mods. Nothing outside it is read or written, whatever a path or a symbolic link says.

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, OpenOptions};
use lanrage_common::mods::{Digest, MAX_FILES, ModFile, check_path};
use sha2::{Digest as _, Sha256};
use std::io::{self, Read, Write as _};
use std::path::Path;

/// Where files are until they are whole.
const PARTIAL: &str = ".lanrage-partial";
/// Read at once.
const CHUNK: usize = 256 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: Dir,
}

/// What is in a folder.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// What can be shared.
    pub(crate) files: Vec<ModFile>,
    /// What cannot: where, and why.
    pub(crate) left_out: Vec<(String, String)>,
}

/// Whether a file is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// As it shall be.
    Same,
    /// With another content.
    Different,
    /// Not at all.
    Missing,
}

/// A file on its way into the folder.
#[derive(Debug)]
pub(crate) struct Partial<'a> {
    folder: &'a Folder,
    name: String,
    file: File,
    /// Bytes that are there already.
    pub(crate) len: u64,
}

impl Folder {
    /// One that exists.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { dir: Dir::open_ambient_dir(path, ambient_authority())? })
    }

    /// Makes it if need be.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Self::open(path)
    }

    /// Reads everything in it.
    pub(crate) fn survey(&self) -> io::Result<Survey> {
        let mut survey = Survey::default();
        survey_dir(&self.dir, "", &mut survey)?;
        Ok(survey)
    }

    /// Whether it has a file.
    pub(crate) fn presence(&self, file: &ModFile) -> io::Result<Presence> {
        let found = match self.dir.open(&file.path) {
            Ok(found) => found,
            Err(error) if is_absence(&error) => return Ok(Presence::Missing),
            Err(error) => return Err(error),
        };
        let metadata = found.metadata()?;
        if !metadata.is_file() || metadata.len() != file.size || digest(found)?.0 != file.sha256 {
            return Ok(Presence::Different);
        }
        Ok(Presence::Same)
    }

    /// A file to read from, if it is still as long as it was.
    pub(crate) fn read(&self, file: &ModFile) -> io::Result<Option<std::fs::File>> {
        let found = self.dir.open(&file.path)?;
        let metadata = found.metadata()?;
        Ok((metadata.is_file() && metadata.len() == file.size).then(|| found.into_std()))
    }

    /// Goes on where an earlier attempt at the same content has ended.
    pub(crate) fn begin(&self, file: &ModFile) -> io::Result<Partial<'_>> {
        self.dir.create_dir_all(PARTIAL)?;
        let name = format!("{PARTIAL}/{}", file.sha256);
        if self.dir.symlink_metadata(&name).is_ok_and(|found| !found.is_file() || found.len() > file.size) {
            self.dir.remove_file(&name)?;
        }
        let opened = self.dir.open_with(&name, OpenOptions::new().append(true).create(true))?;
        let len = opened.metadata()?.len();
        Ok(Partial { folder: self, name, file: opened, len })
    }

    /// Takes away what is left of attempts, when all files are there.
    pub(crate) fn finish(&self) -> io::Result<()> {
        match self.dir.remove_dir_all(PARTIAL) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Partial<'_> {
    /// More of it has come.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Puts it into its place, if it is what it shall be; otherwise it is thrown away and the answer is false.
    pub(crate) fn place(self, file: &ModFile) -> io::Result<bool> {
        let dir = &self.folder.dir;
        if digest(dir.open(&self.name)?)? != (file.sha256, file.size) {
            dir.remove_file(&self.name)?;
            return Ok(false);
        }
        self.file.sync_all()?;
        if let Some((parent, _)) = file.path.rsplit_once('/') {
            dir.create_dir_all(parent)?;
        }
        dir.rename(&self.name, dir, &file.path)?;
        Ok(true)
    }
}

fn survey_dir(dir: &Dir, prefix: &str, survey: &mut Survey) -> io::Result<()> {
    for entry in dir.entries()? {
        let entry = entry?;
        let name = entry.file_name();
        let path = format!("{prefix}{}", name.to_string_lossy());
        if path == PARTIAL {
            continue;
        }
        let kind = entry.file_type()?;
        let trouble = match (name.to_str(), check_path(&path)) {
            (None, _) => Some("its name is not UTF-8: rename it".to_owned()),
            (_, Err(why)) => Some(why.to_string()),
            _ if kind.is_symlink() => Some("symbolic links are not followed".to_owned()),
            _ if !kind.is_dir() && !kind.is_file() => Some("it is no file".to_owned()),
            _ => None,
        };
        if let Some(trouble) = trouble {
            survey.left_out.push((path, trouble));
        } else if kind.is_dir() {
            survey_dir(&entry.open_dir()?, &format!("{path}/"), survey)?;
        } else {
            let (sha256, size) = digest(entry.open()?)?;
            survey.files.push(ModFile { path, size, sha256 });
        }
        if survey.files.len() > MAX_FILES {
            return Ok(()); // the manifest says what is wrong
        }
    }
    Ok(())
}

fn digest(mut file: File) -> io::Result<(Digest, u64)> {
    let (mut hasher, mut chunk, mut size) = (Sha256::new(), vec![0; CHUNK], 0);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok((Digest(hasher.finalize().into()), size)),
            len => {
                hasher.update(&chunk[..len]);
                size += len as u64;
            }
        }
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
