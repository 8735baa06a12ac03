-- MaintenanceOptions.AutoRecovery: default or disabled.
ALTER TABLE instances ADD COLUMN auto_recovery TEXT NOT NULL DEFAULT 'default';
-- Times that the run was started again after its host had restarted, as the host counts them.
ALTER TABLE instance_observations ADD COLUMN recoveries INTEGER NOT NULL DEFAULT 0;
