-- Whether the instance's metadata has its tags: enabled or disabled.
ALTER TABLE instances ADD COLUMN metadata_tags TEXT NOT NULL DEFAULT 'disabled';
