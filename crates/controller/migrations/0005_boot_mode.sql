-- How an AMI boots, in EC2's words: `legacy-bios` (the direct road alone), `uefi` (firmware alone), `uefi-preferred`
-- (both). Those that are here were found to boot directly.
ALTER TABLE images ADD COLUMN boot_mode TEXT NOT NULL DEFAULT 'legacy-bios';
